"""Follows migrations: both hosts' events of a VM become one record. Pure, but for ``restore``."""
