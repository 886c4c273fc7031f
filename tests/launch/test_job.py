"""What a job says of itself when it is given out again."""

import pytest

from dft_search.launch.job import Job


@pytest.mark.parametrize(
    ("known", "arrived", "then"),
    [(None, [0.5], None), (0.0, [], 0.0), (0.0, [0.25, 0.5], 0.5), (0.5, [0.25], 0.5), (0.5, [1.0, 0.25], 1.0)],
)
def test_a_job_that_is_given_out_again_knows_what_has_arrived(known, arrived, then):
    job = Job(0, "t0000", {}, "hash", 1, "folder", [0.5], ["steer"], known=known)
    assert job.knowing(arrived).known == then
