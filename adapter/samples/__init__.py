"""From samples to values: what is kept of a VM, and the value of a metric of one VM and of several. Pure."""
