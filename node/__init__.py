"""One host alone: libvirt in, ``/metrics`` out, the parts' own functions in one process and no bus."""
