"""What commands print: tables, curves, progress, records."""
