"""Bundles: a study's winner, written so that it trains, and is checked, elsewhere."""
