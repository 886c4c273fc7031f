"""Rows in, token segments out: reading, joining, checking, the template, encoding, the order of batches."""
