"""Commands on one host alone, without Kafka: one sample of its VMs, and `virtflow node`."""
