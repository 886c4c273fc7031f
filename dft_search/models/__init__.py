"""A causal language model with an inside: loading, the segmented forward pass, vocabulary losses."""
