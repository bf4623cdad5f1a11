"""On the hypervisor: asks libvirt for all VMs' statistics, listens to its events, publishes both."""
