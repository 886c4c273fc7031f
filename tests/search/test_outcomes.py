"""The outcome table is the one of the design, row by row."""

from dft_search.search.outcomes import TABLE, Meaning, Outcome


def test_every_outcome_has_its_row():
    assert TABLE == {
        Outcome.COMPLETED: Meaning(True, "COMPLETE", True, True, "FINISHED", True),
        Outcome.PRUNED: Meaning(True, "PRUNED", False, True, "FINISHED", True),
        Outcome.DIVERGED: Meaning(True, "PRUNED", False, False, "FAILED", True),
        Outcome.OUT_OF_MEMORY: Meaning(True, "PRUNED", False, False, "FAILED", True),
        Outcome.FAILED: Meaning(True, "FAIL", False, True, "FAILED", True),
        Outcome.ABANDONED: Meaning(True, "FAIL", False, True, "KILLED", False),
        Outcome.INTERRUPTED: Meaning(False, None, False, True, "KILLED", False),
    }


def test_names_are_those_of_the_tag():
    assert [str(outcome) for outcome in Outcome] == [
        "completed",
        "pruned",
        "diverged",
        "out_of_memory",
        "failed",
        "abandoned",
        "interrupted",
    ]
