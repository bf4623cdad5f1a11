"""Between the topics: decodes, orders and normalises the producers' messages, and gives values the names of the metrics."""
