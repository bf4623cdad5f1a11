"""From messages to rows of the tables: fields out of Avro's bytes, samples and records as Arrow columns. Pure."""
