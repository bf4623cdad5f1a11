"""Calls to libvirt that may never return: their budget, the connections that carry them, and which VMs are asked while some hang."""
