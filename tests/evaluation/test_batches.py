"""The layout of requests in batches."""

import random

from dft_search.evaluation.batches import plan, share


def test_every_request_finds_its_own_tokens():
    rng = random.Random(0)
    pairs = []
    for _ in range(300):
        context = [rng.randrange(3) for _ in range(rng.randrange(1, 12))]
        pairs.append((context, [rng.randrange(3) for _ in range(rng.randrange(1, 9))]))
    reads, batches = plan(pairs, max_length=10, device="cpu")

    assert [read.request for read in reads] == list(range(300))
    seen = []
    for batch in batches:
        assert [len(row) for row in batch.rows] == sorted((len(row) for row in batch.rows), reverse=True)
        for read in batch.reads:
            context, continuation = pairs[read.request]
            whole = (context + continuation)[-11:]
            end = read.start + len(continuation)
            assert read.targets == continuation
            assert batch.rows[read.row][:end] == whole[:-1]
            seen.append(read.request)
    assert sorted(seen) == list(range(300))


def test_shared_prefixes_are_read_once():
    question = [5, 6, 7]
    pairs = [(question, [answer]) for answer in range(20)] + [(question, [8, 9]), (question, [8, 9, 1]), ([5, 6], [2])]
    _, batches = plan(pairs, max_length=100, device="cpu")
    assert sorted(row for batch in batches for row in batch.rows) == [[5, 6, 7, 8, 9]]


def test_a_batch_is_bounded_and_a_small_job_can_be_shared():
    pairs = [([index], [1] * 400) for index in range(64)]
    _, batches = plan(pairs, max_length=1000, device="cpu")
    assert max(batch.cost for batch in batches) <= 4096
    _, small = plan([([index], [1] * 4) for index in range(64)], max_length=1000, device="cpu")
    assert len(small) >= 16


def test_share_is_complete_and_even():
    costs = [100, 90, 50, 40, 30, 20, 10, 10, 5, 5]
    shares = share(costs, 3)
    assert sorted(index for one in shares for index in one) == list(range(len(costs)))
    loads = [sum(costs[index] for index in one) for one in shares]
    assert max(loads) - min(loads) <= 20
    assert share([7], 3) == [[0], [], []]
    assert share([], 2) == [[], []]
