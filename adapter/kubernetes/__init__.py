"""All I/O with the Kubernetes API server: its objects, the front proxy's certificate authority, and access reviews."""
