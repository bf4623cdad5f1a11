"""Renders records as lines of the exposition format. Pure."""
