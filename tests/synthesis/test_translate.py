"""`data translate`: real models on a real Ray, interrupted and gone on with, and the filter."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dft_search.cli.app import app
from dft_search.config import InfrastructureError, Interrupted
from dft_search.launch.translate import placed, worker_shape
from dft_search.synthesis import translate as module
from dft_search.synthesis.translate import translate_file
from dft_search.synthesis.translator import Translator, TranslatorOptions

GREETINGS = ["hello world.", "what is water?", "two stones and fire", "the hill has 42 trees.", "a field"]


def rows(count: int = 12) -> list[dict]:
    return [
        {
            "id": f"r{n}",
            "instruction": f"{GREETINGS[n % 5]} {chr(97 + n)}",
            "input": "" if n % 2 else "one line\nand 7 more",
            "output": f"{GREETINGS[(n + 2) % 5]} {chr(107 + n)}",
        }
        for n in range(count)
    ]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def english(tmp_path: Path) -> Path:
    file = tmp_path / "en.json"
    file.write_text(json.dumps(rows()))
    return file


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 5)


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["data", "translate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def in_process(options: TranslatorOptions, asked: list[int], most: int | None = None):
    """Workers in this process; they are interrupted after ``most`` parts."""

    @contextmanager
    def workers(parts):
        def finished() -> Iterator:
            translator = Translator(options)
            for number, texts in parts.items():
                if most is not None and len(asked) >= most:
                    raise KeyboardInterrupt
                asked.append(number)
                yield number, translator.translate(texts)

        yield finished()

    return workers


def interrupted(english: Path, out: Path, options: TranslatorOptions) -> None:
    """Two parts done and a third one half written, as a hard end leaves it."""
    with pytest.raises(Interrupted, match="the same command goes on"):
        translate_file(str(english), out, options, fields={}, workers=in_process(options, [], most=2))
    with out.with_suffix(".partial").open("a") as file:
        file.write('{"part": 2, "te')
    assert not out.exists()


def check_same(one: Path, other: Path) -> None:
    for ending in (".jsonl", ".rejected.jsonl"):
        assert lines(one.with_suffix(ending)) == lines(other.with_suffix(ending))


@pytest.mark.usefixtures("small_parts")
def test_an_interrupted_translation_goes_on_and_ends_with_the_same_rows(nllb, english, tmp_path):
    options = TranslatorOptions(str(nllb), "zh", beams=2)
    whole, out, asked, again = tmp_path / "whole.jsonl", tmp_path / "zh.jsonl", [], []
    expected = translate_file(str(english), whole, options, fields={}, workers=in_process(options, asked))
    assert asked == list(range(expected["parts"])) and expected["parts"] > 4
    interrupted(english, out, options)
    told = translate_file(str(english), out, options, fields={}, workers=in_process(options, again))
    assert again == asked[2:] and told["resumed_parts"] == 2
    assert {name: told[name] for name in ("rows", "rejected", "pieces")} == {
        name: expected[name] for name in ("rows", "rejected", "pieces")
    }
    check_same(out, whole)
    assert not (tmp_path / "zh.partial").exists()
    kept, rejected = lines(out), lines(out.with_suffix(".rejected.jsonl"))
    assert kept and rejected and len(kept) + len(rejected) == 12
    for row in kept:
        assert (row["tgt_input"] == "") == (row["en_input"] == "") and row["lang"] == "zh"
        assert row["tgt_input"].count("\n") == row["en_input"].count("\n")
    assert all(reason["kind"] in ("cut", *module.QUALITY) for row in rejected for reason in row["reasons"])


@pytest.mark.parametrize(
    ("cluster", "free", "asked", "shape"),
    [
        ({"CPU": 16}, {"CPU": 16}, None, (4, 4, 0)),
        ({"CPU": 16}, {"CPU": 16}, 8, (8, 2, 0)),
        ({"CPU": 2}, {"CPU": 2}, 5, (2, 1, 0)),
        ({"CPU": 32, "GPU": 8}, {"CPU": 20, "GPU": 5}, None, (5, 4, 1)),
        ({"CPU": 64, "GPU": 64}, {"CPU": 64, "GPU": 64}, None, (10, 4, 1)),  # no more than parts
    ],
)
def test_as_many_workers_as_there_is_room(cluster, free, asked, shape):
    assert worker_shape(cluster, free, asked, parts=10) == shape


def test_a_cluster_without_room_is_told_instead_of_waited_for():
    with pytest.raises(InfrastructureError, match="no GPU of the cluster is free"):
        worker_shape({"CPU": 8, "GPU": 2}, {"CPU": 8}, None, parts=1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster", "small_parts")
def test_a_translation_goes_on_over_the_cluster(nllb, english, tmp_path):
    options = TranslatorOptions(str(nllb), "zh", beams=2)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "zh.jsonl"
    translate_file(str(english), whole, options, fields={}, workers=in_process(options, []))
    interrupted(english, out, options)
    given = (english, "--out", out, "--language", "zh", "--model", nllb, "--beams", 2, "--workers", 2)
    told = json.loads(run(*given, "--json").stdout)
    assert told["resumed_parts"] == 2 and told["language"] == "zh" and told["code"] == "zho_Hans"
    check_same(out, whole)
    assert "--replace" in run(*given, code=2).stderr
    weights = nllb / "model.safetensors"
    hidden = weights.rename(nllb / "hidden")
    try:
        failed = run(*given, "--replace", code=1)
    finally:
        hidden.rename(weights)
    assert "the translation broke off" in failed.stderr and "the same command goes on" in failed.stderr
    check_same(out, whole)


def test_translations_do_not_depend_on_their_neighbors(nllb):
    translator = Translator(TranslatorOptions(str(nllb), "vi", beams=1))
    texts = [row["instruction"] for row in rows()] + ["water " * 60]
    together = translator.translate(texts)
    assert [translator.translate([text])[0] for text in texts] == together
    assert together[-1][1] is False  # longer than the model reads
    assert any(whole for _, whole in together)


CHINESE = {"Name the capital of France.": "说出法国的首都。", "Paris.": "巴黎。", "List 12 rivers.": "列出十二条河流。",
           "They are many.": "它们很多，这里列不完所有的 34 条河流和 56 座山。"}  # fmt: skip


def test_rows_that_are_no_translation_are_kept_apart_with_the_reason(nllb, tmp_path):
    whole = "This sentence is so long that its language can be told for sure, and nobody has translated it."
    file = tmp_path / "en.jsonl"
    pairs = [("Name the capital of France.", "Paris."), ("List 12 rivers.", "They are 78 and 90 of them."),
             ("Name the capital of France!", whole), ("Endless", "Paris."), ("", "Paris.")]  # fmt: skip
    file.write_text("".join(json.dumps({"q": q, "output": a}) + "\n" for q, a in pairs))
    known = {**CHINESE, "They are 78 and 90 of them.": CHINESE["They are many."], "Endless": "无尽无尽"}
    known["Name the capital of France!"] = "说出法国首都！"

    @contextmanager
    def workers(parts):
        yield iter((n, [(known.get(text, text), text != "Endless") for text in part]) for n, part in parts.items())

    options = TranslatorOptions(str(nllb), "zho_Hans")
    out = tmp_path / "zh.jsonl"
    told = translate_file(str(file), out, options, fields={"en_instruction": "q"}, workers=workers)
    assert [row["tgt_output"] for row in lines(out)] == ["巴黎。"]
    reasons = {
        row["id"]: [reason["kind"] for reason in row["reasons"]] for row in lines(tmp_path / "zh.rejected.jsonl")
    }
    assert reasons == {"en:1": ["digits"], "en:2": ["untranslated"], "en:3": ["cut"], "en:4": ["empty"]}
    assert told["rejected"] == {"digits": 1, "untranslated": 1, "cut": 1, "empty": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--language": "vie_Latin"}, "--language: the model does not know 'vie_Latin'"),
        ({"--model": "no/such/folder"}, "--model: no such folder"),
        ({"--field": "en_output=outptu"}, "did you mean 'output'?"),
        ({"--model": "llama"}, "translates no text"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_starts(nllb, english, tmp_path, change, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    given = {"--language": "vi", "--model": str(nllb), "--out": "out.jsonl"} | change
    assert said in run(english, *(word for pair in given.items() for word in pair), code=2).stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_the_unfinished_work_of_another_request_is_not_gone_on_with(nllb, english, tmp_path):
    options, out = TranslatorOptions(str(nllb), "zh", beams=1), tmp_path / "zh.jsonl"
    with pytest.raises(Interrupted, match="the same command goes on"):
        translate_file(str(english), out, options, fields={}, workers=in_process(options, [], most=0))
    said = run(english, "--out", out, "--language", "vi", "--model", nllb, code=2).stderr
    assert "unfinished work of another request: beams, language differ" in " ".join(said.split())


@pytest.mark.parametrize(
    ("shape", "nodes", "expected"),
    [
        ((1, 4, 0), [{"CPU": 3}, {"CPU": 3}], (1, 3, 0)),  # CPUs of two nodes make no worker of four
        ((2, 4, 0), [{"CPU": 2}] * 4, (2, 2, 0)),
        ((1, 4, 1), [{"CPU": 32}, {"CPU": 2, "GPU": 1}], (1, 2, 1)),
        ((4, 2, 0), [{"CPU": 2}, {"CPU": 1}], (3, 1, 0)),
    ],
)
def test_workers_are_such_as_single_nodes_can_hold(shape, nodes, expected):
    assert placed(*shape, nodes) == expected


def test_no_node_with_room_is_told_at_once():
    with pytest.raises(InfrastructureError, match="no node of the cluster has a CPU and a GPU free"):
        placed(1, 1, 1, [{"CPU": 8}, {"CPU": 0, "GPU": 1}])
