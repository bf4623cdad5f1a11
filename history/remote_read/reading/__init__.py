"""From a remote_read query to its series: which VMs and metrics, from which tier, and the samples that an expression looks at."""
