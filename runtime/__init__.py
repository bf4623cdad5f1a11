"""The plumbing that services share: settings, Kafka clients, logs, lifecycle, web server, own metrics. The only shared I/O."""
