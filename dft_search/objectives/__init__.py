"""The terms of a loss, one file each with its options beside it, and the methods built from them.

Nothing here but ``batch``, ``module`` and ``compute`` loads torch.
"""
