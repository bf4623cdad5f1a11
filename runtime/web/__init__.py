"""The HTTP server of every service, the limits on its connections, and what clients of others share."""
