"""Files are YAML 1.2, keep their lines, and every mistake gets one clear line."""

from typing import Literal

import pytest

from dft_search.config import Options, RequestError, apply_overrides, build, expand_path, home, parse_document
from dft_search.config.document import MAX_NODES


class Lora(Options):
    rank: int = 8


class LoraPart(Options):
    lora: Lora


class LayerPart(Options):
    layers: list[int]


class Inner(Options):
    layer: int | str = 2
    weight: float = 1.0
    supervision: Literal["logits", "feature"] = "logits"
    trainable: Literal["full", "attention"] | LoraPart | LayerPart = "full"
    files: list[str] = []


class Root(Options):
    inner: Inner = Inner()
    rate: float


def problems(text: str) -> list[str]:
    with pytest.raises(RequestError) as caught:
        build(Root, parse_document(text, "f.yaml"), ("recipe",))
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def test_yaml_1_2_scalars():
    data = parse_document("a: 5e-6\nb: no\nc: yes\nd: 2.0e-5\ne: true\nf: null\ng: 0o17", "x").data
    assert data == {"a": 5e-6, "b": "no", "c": "yes", "d": 2e-5, "e": True, "f": None, "g": 15}
    assert [type(value) for value in data.values()] == [float, str, str, float, bool, type(None), int]


def test_lines_are_kept():
    document = parse_document("a:\n  b:\n    - x\n    - y: 1\n", "x")
    assert document.line(("a", "b")) == 2
    assert document.line(("a", "b", 1, "y")) == 4
    assert document.line(("a", "b", 1, "absent")) == 4
    assert document.line(("absent",)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "recipe:\n  inner:\n    layr: 3\n  rate: 1",
            "f.yaml:3: recipe.inner.layr: unknown key (did you mean 'layer'?)",
        ),
        ("recipe:\n  rate: abc", "f.yaml:2: recipe.rate: 'abc' is not accepted (expected a number)"),
        ("recipe:\n  inner: {}", "f.yaml:1: recipe.rate: is required"),
        (
            "recipe:\n  inner: {supervision: logit}\n  rate: 1",
            "f.yaml:2: recipe.inner.supervision: 'logit' is not allowed "
            "(expected one of logits, feature; did you mean 'logits'?)",
        ),
        (
            "recipe:\n  inner: {layer: 2.5}\n  rate: 1",
            "f.yaml:2: recipe.inner.layer: 2.5 is not accepted (expected an integer or text)",
        ),
        (
            "recipe:\n  inner:\n    trainable: {lora: {rnk: 2}}\n  rate: 1",
            "f.yaml:3: recipe.inner.trainable.lora.rnk: unknown key (did you mean 'rank'?)",
        ),
        (
            "recipe:\n  inner:\n    trainable: {layers: 2}\n  rate: 1",
            "f.yaml:3: recipe.inner.trainable.layers: 2 is not accepted (expected a list)",
        ),
        ("recip: {rate: 1}", "f.yaml: section 'recipe' is missing (did you mean 'recip'?)"),
    ],
)
def test_one_line_for_each_mistake(text: str, expected: str):
    assert problems(text) == [expected]


def test_all_mistakes_are_told_at_once():
    assert len(problems("recipe:\n  inner: {weight: x, layr: 1}\n  rate: no")) == 3


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: 1\na: 2", "duplicate key"),
        ("a: [1,", "not valid YAML"),
        ("", "is empty"),
        ("- a", "not a YAML mapping"),
        ("a: !!python/object:os.system x", "is refused"),
        ("a: !!python/object/apply:os.system [ls]", "is refused"),
        ("a: !run {b: 1}", "tag !run is refused"),
        ("a: 2020-01-01", "is a date"),
        ("1: a", "is not text"),
    ],
)
def test_refused_files(text: str, fragment: str):
    with pytest.raises(RequestError, match=fragment):
        parse_document(text, "f.yaml")


def test_exponential_aliases_are_refused():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    with pytest.raises(RequestError, match=str(MAX_NODES)):
        parse_document("\n".join(levels), "f.yaml")


def test_overrides_are_yaml_values():
    document = parse_document("recipe: {rate: 1}", "f.yaml")
    apply_overrides(document, ["recipe.rate=5e-6", "recipe.inner.files=[a, b]"])
    assert build(Root, document, ("recipe",)) == Root(rate=5e-6, inner=Inner(files=["a", "b"]))


@pytest.mark.parametrize("override", ["recipe.rate", "=1", "recipe..rate=1", "recipe.rate.x=1"])
def test_bad_overrides(override: str):
    document = parse_document("recipe: {rate: 1}", "f.yaml")
    with pytest.raises(RequestError, match="--set"):
        apply_overrides(document, [override])


def test_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("DFT_SEARCH_HOME", str(tmp_path))
    monkeypatch.setenv("ROWS", "/rows")
    monkeypatch.delenv("ABSENT", raising=False)
    assert home() == tmp_path
    assert expand_path("${ROWS}/a.jsonl") == "/rows/a.jsonl"
    assert expand_path("a.jsonl", tmp_path) == str(tmp_path / "a.jsonl")
    assert expand_path("a.jsonl") == "a.jsonl"
    assert expand_path("s3://bucket/a", tmp_path) == "s3://bucket/a"
    assert expand_path("package:demo/base").endswith("dft_search/demo/base")
    assert expand_path("${DFT_SEARCH_HOME}/models") == str(tmp_path / "models")
    with pytest.raises(RequestError, match="ABSENT is not set"):
        expand_path("${ABSENT}/a")
