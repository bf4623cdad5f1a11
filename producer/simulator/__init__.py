"""Synthetic hypervisors that publish real snapshots and events."""
