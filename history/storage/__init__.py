"""Where the tables are and what they look like."""
