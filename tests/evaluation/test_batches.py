"""The layout of requests in batches."""

import random

import pytest

from dft_search.evaluation.batches import plan, share


def chain(segments, segment):
    """All tokens that the last token of ``segment`` sees."""
    node = segments[segment]
    above = [] if node.parent < 0 else chain(segments, node.parent)[: node.start]
    assert len(above) == node.start
    return above + list(node.tokens)


def question(rng, length):
    return [rng.randrange(1000) for _ in range(length)]


@pytest.mark.parametrize(("longest", "shared"), [(12, 0), (30, 20), (60, 17)])
def test_every_request_finds_its_own_tokens(longest, shared):
    rng = random.Random(0)
    prefixes = [[rng.randrange(3) for _ in range(shared)] for _ in range(4)]
    pairs = []
    for _ in range(300):
        context = rng.choice(prefixes) + [rng.randrange(3) for _ in range(rng.randrange(1, longest))]
        pairs.append((context, [rng.randrange(3) for _ in range(rng.randrange(1, 9))]))
    scored, batches = plan(pairs, max_length=40, layers=2, device="cpu")

    assert scored == [len(continuation) for _, continuation in pairs]
    seen = []
    for batch in batches:
        for segment in batch.segments:
            assert segment.depth == 2
            assert len(segment.tokens) > 0
        for read in batch.reads:
            context, continuation = pairs[read.request]
            whole = (context + continuation)[-41:]
            end = read.start + len(continuation)
            assert read.targets == continuation
            assert chain(batch.segments, read.segment)[:end] == whole[:-1]
            seen.append(read.request)
    assert sorted(seen) == list(range(300))


def test_shared_prefixes_are_read_once():
    rng = random.Random(0)
    header = question(rng, 40)
    first, second = header + question(rng, 30), header + question(rng, 20)
    pairs = [(context, [k, k + 1, k + 2]) for context in (first, second) for k in range(5)]
    _, (batch,) = plan(pairs, max_length=200, layers=2, device="cpu")
    assert batch.cost == 40 + 30 + 20 + 10 * 2  # the last token of an answer is never read

    letters = [(first, [letter]) for letter in range(20)] + [(first, [8, 9]), (first, [8, 9, 1]), (header, [2])]
    _, (batch,) = plan(letters, max_length=200, layers=2, device="cpu")
    assert [list(segment.tokens) for segment in batch.segments] == [[*first, 8, 9]]


def test_choices_of_a_question_stay_in_one_batch():
    rng = random.Random(0)
    contexts = [question(rng, rng.randrange(50, 300)) for _ in range(100)]
    pairs = [(context, question(rng, 6)) for context in contexts for _ in range(4)]
    _, batches = plan(pairs, max_length=1000, layers=2, device="cpu")
    assert len(batches) >= 16, "ranks must find pieces to share"
    assert max(batch.cost for batch in batches) <= 4096
    # first tokens of the answers that happen to be equal save a little more
    assert sum(batch.cost for batch in batches) == pytest.approx(sum(map(len, contexts)) + 400 * 5, abs=20)
    homes = {read.request: number for number, batch in enumerate(batches) for read in batch.reads}
    assert all(len({homes[4 * item + choice] for choice in range(4)}) == 1 for item in range(100))


def test_examples_before_every_question_are_not_read_for_each_batch():
    rng = random.Random(0)
    examples = question(rng, 900)
    pairs = [(examples + question(rng, 50), question(rng, 5)) for _ in range(80)]
    _, batches = plan(pairs, max_length=2000, layers=2, device="cpu")
    own = 80 * 54
    assert own + 900 < sum(batch.cost for batch in batches) < 2 * own
    for batch in batches:  # keys that attention copies
        assert sum(segment.start + len(segment.tokens) for segment in batch.segments) < 9 * 4096


def test_a_batch_is_bounded_and_a_small_job_can_be_shared():
    pairs = [([index], [1] * 400) for index in range(64)]
    _, batches = plan(pairs, max_length=1000, layers=2, device="cpu")
    assert max(batch.cost for batch in batches) <= 4096
    _, small = plan([([index], [1] * 4) for index in range(64)], max_length=1000, layers=2, device="cpu")
    assert len(small) >= 16


def test_share_is_complete_and_even():
    costs = [100, 90, 50, 40, 30, 20, 10, 10, 5, 5]
    shares = share(costs, 3)
    assert sorted(index for one in shares for index in one) == list(range(len(costs)))
    loads = [sum(costs[index] for index in one) for one in shares]
    assert max(loads) - min(loads) <= 20
    assert share([7], 3) == [[0], [], []]
    assert share([], 2) == [[], []]
