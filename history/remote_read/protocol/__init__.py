"""Prometheus' remote_read on the wire: requests from protobuf, answers as samples or chunks. Pure."""
