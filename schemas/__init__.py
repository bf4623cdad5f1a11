"""The contract on both sides of every topic: metrics, records, topics, codec, errors. Imports nothing of ours."""
