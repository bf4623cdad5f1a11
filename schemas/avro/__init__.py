"""Avro: schemas from record types, bytes from records and back."""
