"""Between the topics: decodes, orders, normalises and names what the producers sent."""
