"""Prometheus' remote_read, answered from the tables."""
