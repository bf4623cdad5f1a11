"""`virtflow history forget`: who is meant, what is taken out of the tables, and which files go."""
