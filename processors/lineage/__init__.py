"""Whether what was processed is still there: marks in the commits, and where a partition goes on where the broker has lost its end."""
