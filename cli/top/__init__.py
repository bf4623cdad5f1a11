"""`virtflow top`: the fleet in a terminal, from an exporter's API."""
