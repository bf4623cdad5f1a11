"""The HTTP server of every service, and the limits on its connections."""
