"""Records to Kafka: split, queued, journaled, sent."""
