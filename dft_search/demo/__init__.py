"""The built-in demo: a small English-centric model and a bilingual world, offline and deterministic."""
