"""Upkeep of the tables: roll-up, compaction, expiry, and when they run."""
