"""The schema registry: the ids of our schemas and the schemas of others, over its REST API."""
