"""Lines of exposition from records: pure."""
