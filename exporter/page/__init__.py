"""The fleet page: HTML that is complete without scripts, then kept current by them from the API."""
