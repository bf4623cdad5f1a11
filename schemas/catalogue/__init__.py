"""The catalogue of metrics: one row per metric, a table lies in the file of its name."""
