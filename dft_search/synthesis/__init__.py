"""Rows that models make: translation of English rows to a target language."""
