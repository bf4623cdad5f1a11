"""Calls to libvirt that may never return: their budget, whom to ask while some are hung, and who makes them."""
