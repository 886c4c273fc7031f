"""The connection to Ray, and which error a block leaves with."""

import pytest
import ray

from dft_search.launch.connect import connected


def test_an_error_under_a_ray_of_our_own_is_told_as_it_is() -> None:
    """Not as a cluster that vanished: ours ends with the block, and before that it answered."""
    with pytest.raises(KeyError, match="a mistake"), connected("; go on") as ours:
        assert ours and ray.is_initialized()
        raise KeyError("a mistake")
    assert not ray.is_initialized()
