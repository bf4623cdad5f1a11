"""Simulated time and threads for code that waits: one scheduler, and what stands in the place of ``time``, ``threading`` and ``queue`` on it.

The simulation of the stream (``tests/simulation``) and the in-memory libvirt (``tests/support/memory_libvirt``) both run on it.
"""
