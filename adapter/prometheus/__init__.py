"""Prometheus as the adapter's source in Kafka's place: what exporters showed at each scrape becomes samples again."""
