"""Seeds of trials, arms and samplers, which have to fit into 31 bits."""

from dft_search.training.seeds import derive


def derive_seed(*parts: int | str) -> int:
    """A seed of 31 bits that depends on all ``parts``: the upper half of ``training.seeds.derive``."""
    return derive(*parts) >> 32
