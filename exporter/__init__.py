"""The fleet's current truth in memory, served to Prometheus."""
