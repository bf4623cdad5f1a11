"""Migrations: the events of both hosts of a VM become one record. Pure, except for ``restore`` and ``stored``."""
