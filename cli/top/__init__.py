"""`virtflow top`: the fleet in a terminal, from an exporter's API, from Kafka, or from this host's libvirt; and VMs completed from that API."""
