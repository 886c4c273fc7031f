"""The study folder: files survive crashes, one driver at a time, names cannot escape."""

import os
import subprocess
import sys

import pytest

from dft_search.config import RequestError
from dft_search.search.study_folder import StudyFolder, TrialRecord, study_path


def test_trials_and_reports_come_back(tmp_path):
    folder = StudyFolder(tmp_path / "s")
    record = TrialRecord(7, "search", {"a.b": 3}, 11, "abc", dev={"score": {"value": 1.0, "stderr": None, "n": 2}})
    folder.write_trial(record)
    folder.append_report(7, {"fraction": 0.5, "scores": {}, "items": {"t": [1.0, 0.0]}})
    folder.append_report(7, {"fraction": 1.0, "scores": {}, "items": {"t": [1.0, 1.0]}})
    assert folder.read_trials() == [record]
    assert [report["fraction"] for report in folder.read_reports(7)] == [0.5, 1.0]
    assert "items" not in folder.read_reports(7)[0]
    assert (folder.trial(7) / "items.json").read_text().split() == '{ "t": [ 1.0, 1.0 ] }'.split()


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.append_report(0, {"fraction": 0.5})
    with open(folder.trial(0) / "reports.jsonl", "a") as file:
        file.write('{"fraction": 1')
    assert folder.read_reports(0) == [{"fraction": 0.5}]
    folder.append_report(0, {"fraction": 1.0})
    assert folder.read_reports(0) == [{"fraction": 0.5}, {"fraction": 1.0}]


def test_a_report_that_is_told_again_takes_the_place_of_what_was_told_from_there_on(tmp_path):
    """A trial that began anew tells all of its reports; steps without scores are added to what is there."""
    folder, scores = StudyFolder(tmp_path), {"score": {"value": 1.0, "stderr": None, "n": 2}}
    for step, fraction, told in [
        (5, 0.5, scores),
        (10, 1.0, scores),
        (3, 0.25, scores),
        (5, 0.5, scores),
        (7, 0.5, {}),
    ]:
        folder.append_report(0, {"step": step, "fraction": fraction, "scores": told})
    assert [report["step"] for report in folder.read_reports(0)] == [3, 5, 7]


HOLD = "import sys, pathlib; from dft_search.search.study_folder import StudyFolder\n" + (
    "with StudyFolder(pathlib.Path(sys.argv[1])).locked():\n print('held', flush=True); sys.stdin.read()"
)


def test_a_second_driver_is_refused_and_told_who_the_first_is(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        folder = StudyFolder(tmp_path)
        assert folder.is_locked()
        with pytest.raises(RequestError, match=f"is being run by process {first.pid} on "), folder.locked():
            pytest.fail("two drivers")
        first.kill()  # as a crash would: the lock must not outlive its holder
    assert not folder.is_locked()
    with folder.locked():
        assert str(os.getpid()) in (tmp_path / "lock").read_text()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "a" * 41, "a b", "."])
def test_names_that_are_no_names(name, monkeypatch, tmp_path):
    monkeypatch.setenv("DFT_SEARCH_HOME", str(tmp_path))
    with pytest.raises(RequestError, match="is not a study's name"):
        study_path(name)


def test_an_unknown_study_gets_the_nearest(monkeypatch, tmp_path):
    monkeypatch.setenv("DFT_SEARCH_HOME", str(tmp_path))
    (tmp_path / "studies/alpaca-zh").mkdir(parents=True)
    (tmp_path / "studies/alpaca-zh/study.yaml").write_text("study: {}\n")
    assert study_path("alpaca-zh") == tmp_path / "studies/alpaca-zh"
    with pytest.raises(RequestError, match="did you mean 'alpaca-zh'?"):
        study_path("alpaca-hz")
