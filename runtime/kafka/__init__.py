"""Kafka: the settings of its clients, its topics and rights, and why and since when a broker can't be used."""
