"""The last phase of a study: its best recipes against tuned baselines, under fresh seeds and a sealed test."""
