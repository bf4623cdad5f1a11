"""All libvirt I/O of the producer: connections, queries, event subscriptions, and the QEMU processes beside them."""
