"""Several libvirt daemons of one host: which there are, their connections, and one round from all of them."""
