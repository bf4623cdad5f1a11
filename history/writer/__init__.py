"""From the topics into tables, exactly once."""
