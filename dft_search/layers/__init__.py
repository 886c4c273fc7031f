"""Looking inside a model: entropy profile, retrieval and gradient alignment by layer."""
