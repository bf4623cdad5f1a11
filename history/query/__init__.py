"""Questions to the tables: SQL, ranges, reports, placement."""
