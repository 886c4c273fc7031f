"""Adapters that were trained apart become one: what `cat` and the others give, what is told, and what is refused."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from dft_search.bundle.merge_request import COMBINATIONS, Merge
from dft_search.bundle.read import read_bundle
from dft_search.bundle.write import Weights, export
from dft_search.cli.app import app
from tests.bundle import conftest
from tests.bundle.conftest import SEED, write_study
from tests.search.small import write_questions
from tests.training.jobs import export as train_and_save
from tests.training.tiny import make_recipe

IDS = torch.tensor([[1, 5, 9, 12, 7], [1, 30, 31, 4, 2]])
LORA = {"lora": {"targets": ["q_proj", "down_proj"], "dropout": 0.0, "rank": 4, "alpha": 6}}
OTHER = {"lora": {"targets": ["k_proj", "q_proj"], "dropout": 0.0, "rank": 2, "alpha": 16}}


class Apart(NamedTuple):
    """Two trials of a study, and a folder that peft wrote, all adapters on one base."""

    study: Path
    trial: Path
    folder: Path
    task: Path
    world: Path


@pytest.fixture(scope="module")
def apart(trained_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("merge")
    task = home / "task"
    task.mkdir()
    scoring = {"dev": [{"task": str(write_questions(task))}], "test": [], "score": {"mean": ["tiny_questions.margin"]}}

    def recipe(*arguments: Any, **options: Any) -> Any:
        from dft_search.evaluation.options import ScoringOptions

        made = make_recipe(*arguments, trainable=LORA, **options)
        scored = ScoringOptions.model_validate({**scoring, "test": scoring["dev"]})
        return made.model_copy(update={"scoring": scored})

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(home))
        patch.setenv("DFT_SEARCH_FILES", str(trained_world))
        study = home / "studies" / "tiny"
        with pytest.MonkeyPatch.context() as while_written:  # other studies have other recipes
            while_written.setattr(conftest, "make_recipe", recipe)
            write_study(study, trained_world)
        other = make_recipe(trained_world, "feature", trainable=OTHER)
        train_and_save(other, home / "peft", IDS.tolist())
        questions = task / "tiny_questions.yaml"
        yield Apart(study, study / "trials" / "t0000", home / "peft" / "model", questions, trained_world)


def merged(apart: Apart, out: Path, *others: Path, weights: tuple[float, ...], **options: Any) -> Path:
    full = options.pop("full", False)
    merge = Merge(tuple(map(str, others)), weights, **options)
    return export(apart.study, out, weights=Weights(full=full, merge=merge))


def deltas(folder: Path) -> dict[str, Tensor]:
    """What an adapter adds to each weight, in float64: alpha / rank B A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").replace(".lora_A", ""): config["lora_alpha"]
        / config["r"]
        * (tensors[name.replace("lora_A", "lora_B")].double() @ a.double())
        for name, a in tensors.items()
        if ".lora_A" in name
    }


def added(*weighted: tuple[float, dict[str, Tensor]]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for weight, parts in weighted:
        for name, delta in parts.items():
            total[name] = total.get(name, torch.zeros_like(delta)) + weight * delta
    return total


def base(apart: Apart) -> Any:
    return AutoModelForCausalLM.from_pretrained(apart.world / "llama", dtype=torch.float64).eval()


@pytest.fixture(scope="module")
def single(apart: Apart, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], ...]:
    """What each of the three adapters adds by itself: trial 1, trial 0, the folder."""
    folder = tmp_path_factory.mktemp("single")
    trials = [export(apart.study, folder / str(n), trial=n, weights=Weights()) / "model" for n in (1, 0)]
    return (*map(deltas, trials), deltas(apart.folder))


def test_cat_is_the_weighted_sum(apart: Apart, single: Any, tmp_path: Path) -> None:
    weights = (0.5, 0.7, -0.3)
    out = merged(apart, tmp_path / "out", apart.trial, apart.folder, weights=weights)
    config = json.loads((out / "model" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4 + 4 + 2
    expected = added(*zip(weights, single, strict=True))
    found = deltas(out / "model")
    assert found.keys() >= expected.keys() and len(expected) == 9
    for name, delta in expected.items():
        assert delta.abs().max() > 1e-4 and torch.allclose(found[name], delta, rtol=0, atol=1e-6), name
    model, theirs = base(apart), PeftModel.from_pretrained(base(apart), out / "model").double().eval()
    with torch.no_grad():
        plain = model(IDS).logits
        for name, delta in expected.items():
            model.get_parameter(name).add_(delta)
        logits = model(IDS).logits
        assert (logits - plain).abs().max() > 1e-2
        assert torch.allclose(theirs(IDS).logits, logits, rtol=1e-6, atol=1e-6)


def test_an_alignment_adapter_trained_apart(apart: Apart, single: Any, tmp_path: Path) -> None:
    """Alignment alone on the same rows, from the base, to be merged with the adapter of the task."""
    recipe = make_recipe(apart.world, "apart", trainable=LORA)
    train_and_save(recipe, tmp_path / "aligned", IDS.tolist())
    own = deltas(tmp_path / "aligned" / "model")
    assert all(delta.abs().max() > 1e-4 for name, delta in own.items() if "layers.2." not in name)
    assert not any(delta.any() for name, delta in own.items() if "layers.2." in name)  # above where it aligns
    merged_to, other = tmp_path / "out", tmp_path / "aligned" / "model"
    run("export", "tiny", "--trial", 0, "--merge", f"{other}=0.4", "--own-weight", 0.6, "--out", merged_to)
    found = deltas(merged_to / "model")
    for name, delta in added((0.6, single[1]), (0.4, own)).items():
        assert torch.allclose(found[name], delta, rtol=0, atol=1e-6), name


def test_an_adapter_with_patterns(apart: Apart, single: Any, tmp_path: Path) -> None:
    """Ranks, scales and layers of each module as peft lets them differ: what is merged is what there is."""
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj"],
        layers_to_transform=[0, 1],
        rank_pattern={"v_proj": 2},
        alpha_pattern={"model.layers.1.self_attn.v_proj": 12},
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(apart.world / "llama"), config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter) if "lora_B" in name else None
    model.save_pretrained(tmp_path / "theirs")
    scales = {"0.self_attn.q": 8 / 4, "1.self_attn.q": 8 / 4, "0.self_attn.v": 8 / 2, "1.self_attn.v": 12 / 2}
    tensors = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    theirs = {}
    for place, scale in scales.items():
        a, b = (tensors[f"base_model.model.model.layers.{place}_proj.lora_{side}.weight"].double() for side in "AB")
        theirs[f"model.layers.{place}_proj.weight"] = scale * b @ a
    found = deltas(merged(apart, tmp_path / "out", tmp_path / "theirs", weights=(1.0, 0.25)) / "model")
    for name, delta in (expected := added((1.0, single[0]), (0.25, theirs))).items():
        assert torch.allclose(found[name], delta, rtol=0, atol=1e-6), name
    assert found.keys() == expected.keys() and len(expected) == 8


def test_full_is_the_base_with_the_sum_in_it(apart: Apart, single: Any, tmp_path: Path) -> None:
    out = merged(apart, tmp_path / "out", apart.trial, weights=(0.5, 0.5), full=True)
    about = read_bundle(out).bundle.weights
    assert about is not None and about.kind == "full" and about.merged is not None
    found = load_file(out / "model" / "model.safetensors")
    total = added((0.5, single[0]), (0.5, single[1]))
    for name, weight in base(apart).named_parameters():
        assert torch.allclose(found[name].double(), weight + total.get(name, 0), rtol=0, atol=1e-6), name
    alone = export(apart.study, tmp_path / "alone", weights=Weights(full=True))
    found = load_file(alone / "model" / "model.safetensors")
    for name, weight in base(apart).named_parameters():
        assert torch.allclose(found[name].double(), weight + single[0].get(name, 0), rtol=0, atol=1e-6), name


@pytest.mark.parametrize("kind", COMBINATIONS)
def test_every_combination_runs_and_is_told(kind: str, apart: Apart, single: Any, tmp_path: Path) -> None:
    density = 0.6 if "ties" in kind or "dare" in kind else None
    options: dict[str, Any] = {"weights": (0.6, 0.4), "combination": kind, "density": density}
    out = merged(apart, tmp_path / "out", apart.trial, **options)
    record = read_bundle(out).bundle.weights
    assert record is not None and record.kind == "adapter" and record.dtype == "float32" and record.merged is not None
    told = record.merged
    assert (told.combination, told.density, told.weights, told.searched) == (kind, density, [0.6, 0.4], False)
    assert [one.name for one in told.adapters] == ["trial 1", "t0000-step6"] and told.adapters[1].fingerprint
    for page in (out / "README.md", out / "model" / "README.md"):
        words = (
            f"merged by `{kind}`{f', density {density:g}' if density else ''}: 0.6 x `trial 1` (seed {SEED}) + 0.4 x"
        )
        assert words in page.read_text()
    found, total = deltas(out / "model"), added((0.6, single[0]), (0.4, single[1]))
    assert found.keys() == total.keys() and all(delta.abs().max() > 0 for delta in found.values())
    for name, delta in found.items():
        if kind == "cat":
            assert torch.allclose(delta, total[name], rtol=0, atol=1e-6)
        elif kind == "svd":  # the best approximation of this rank, by the singular values that it leaves
            rest = torch.linalg.svdvals(total[name])[4:]
            assert torch.allclose(torch.linalg.norm(delta - total[name]), rest.norm(), rtol=1e-3, atol=1e-6)
        else:
            assert not torch.allclose(delta, total[name], rtol=0, atol=1e-6)
    again = merged(apart, tmp_path / "again", apart.trial, **options)
    files = [load_file(one / "model" / "adapter_model.safetensors") for one in (out, again)]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


def test_linear_adds_the_factors(apart: Apart, tmp_path: Path) -> None:
    parts = [export(apart.study, tmp_path / str(n), trial=n, weights=Weights()) / "model" for n in (1, 0)]
    out = merged(apart, tmp_path / "out", apart.trial, weights=(0.6, 0.4), combination="linear")
    own, other, found = (load_file(folder / "adapter_model.safetensors") for folder in (*parts, out / "model"))
    for name, tensor in found.items():
        expected = (0.6 * 6 / 4) ** 0.5 * own[name] + (0.4 * 6 / 4) ** 0.5 * other[name]
        assert torch.allclose(tensor, expected, rtol=1e-5, atol=1e-6), name


def run(*arguments: Any, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.stdout if code == 0 else result.stderr


def score(place: Path, apart: Apart, *options: str) -> float:
    told = run("evaluate", place, "--tasks", apart.task, "--split", "steer", "--no-tracking", "--json", *options)
    (row,) = [row for row in json.loads(told)["scores"] if row["metric"] == "margin"]
    return row["value"]


def test_it_scores_the_same_wherever_it_lies(apart: Apart, tmp_path: Path) -> None:
    """As a bundle, as peft's folder, and in the base; the other by the folder of a trial, of a bundle, by its study."""
    study = apart.study.with_name("aligned")
    shutil.copytree(apart.study, study)
    (study / "confirmation.json").unlink()
    run("export", study, "--trial", 0, "--weights", "--out", tmp_path / "bundle")
    trial = json.loads((study / "trials" / "t0000" / "trial.json").read_text())
    trial["dev"]["score"]["value"] = 0.9  # the study's best
    (study / "trials" / "t0000" / "trial.json").write_text(json.dumps(trial))
    scores = []
    for number, other in enumerate((apart.trial, tmp_path / "bundle", tmp_path / "bundle" / "model", "aligned")):
        run("export", "tiny", "--merge", f"{other}=0.4", "--out", tmp_path / str(number))
        scores.append(score(tmp_path / str(number), apart))
    scores.append(score(tmp_path / "0" / "model", apart, "--base", str(apart.world / "llama")))
    run("export", "tiny", "--merge", f"{apart.trial}=0.4", "--full", "--out", tmp_path / "full")
    scores += [score(tmp_path / "full", apart), score(tmp_path / "full" / "model", apart)]
    assert scores == pytest.approx([scores[0]] * len(scores), abs=1e-5)
    alone = score(apart.study / "trials" / "t0001", apart)
    assert abs(alone - scores[0]) > 1e-4
    run("verify", tmp_path / "0")


def test_dev_chooses_the_weights(apart: Apart, tmp_path: Path) -> None:
    run("export", "tiny", "--merge", f"{apart.folder}=search", "--out", tmp_path / "out")
    about = read_bundle(tmp_path / "out").bundle.weights
    assert about is not None and about.merged is not None and about.merged.searched
    tried = {tuple(one.weights): one.score for one in about.merged.dev}
    assert list(tried) == [(0.7, 0.3), (0.6, 0.4), (0.5, 0.5), (0.4, 0.6), (0.3, 0.7)]
    values = {weights: one.value for weights, one in tried.items()}
    assert len(set(values.values())) == 5 and values[tuple(about.merged.weights)] == max(values.values())
    for weights in {(0.3, 0.7), tuple(about.merged.weights)}:  # as the same merge with these weights given scores there
        out = tmp_path / f"{weights[1]}"
        run("export", "tiny", "--merge", f"{apart.folder}={weights[1]}", "--out", out)
        assert score(out, apart) == pytest.approx(values[weights], abs=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    own, other = about.merged.weights
    assert f"| {own:g} | {other:g} | {max(values.values()):.4g} ±" in card and "| chosen |" in card
    assert "8 items of dev, steer part" in card
    before = (tmp_path / "out" / "bundle.yaml").read_bytes()
    run("export", "tiny", "--merge", f"{apart.folder}=search", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "bundle.yaml").read_bytes() == before


def copied(apart: Apart, folder: Path, tensors: Any = None, **config: Any) -> Path:
    """The peft folder with something changed."""
    shutil.copytree(apart.folder, folder)
    told = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**told, **config}))
    if tensors is not None:
        found = load_file(folder / "adapter_model.safetensors")
        save_file(tensors(found), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def renamed(old: str, new: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[:, :-1].contiguous() if "lora_A" in name else tensor for name, tensor in tensors.items()}


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "0.self_attn.k_proj.lora_B" not in name}


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "no folder": (["{home}/peft/modle"], ["no folder", "did you mean", "peft/model'"]),
    "no study": (["tinny"], ["--merge: no study 'tinny'", "did you mean 'tiny'"]),
    "a whole model": (["{world}/llama"], ["is a whole model, not an adapter", "a study's name"]),
    "no weight": (["{folder}=much"], ["'much' is no weight", "OTHER=0.5"]),
    "serch": (["{folder}=serch"], ["did you mean 'search'"]),
    "two to search": (["{folder}=search", "--merge", "{trial}"], ["cannot search these weights"]),
    "combination": (["{folder}", "--combination", "linaer"], ["no combination 'linaer'", "did you mean 'linear'"]),
    "ranks": (["{folder}", "--combination", "linear"], ["the ranks differ: 4 in 'trial 1', 2 in 'peft'", "svd"]),
    "density": (["{folder}", "--density", "0.5"], ["cat keeps every value"]),
    "no share": (["{trial}", "--combination", "ties", "--density", "2"], ["2 is no share"]),
    "register": (["{folder}", "--register", "mine"], ["merged weights are of no trial's run"]),
    "another base": (["{copies}/base"], ["was made on another base model", "tied"]),
    "dora": (["{copies}/dora"], ["uses use_dora, use_rslora"]),
    "a bias": (["{copies}/bias"], ["holds base_model.model.model.norm.bias"]),
    "another module": (["{copies}/module"], ["'model.layers.0.self_attn.kproj', which the base has not", "k_proj'?"]),
    "another shape": (["{copies}/shape"], ["a product of shape (16, 32)"]),
    "another rank": (["{copies}/rank"], ["is of rank 2 in model.layers.0", "rank 3, as its configuration says"]),
    "values": (["{copies}/values"], ["that are no numbers"]),
    "half of it": (["{copies}/half"], ["has no base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"]),
}


@pytest.fixture(scope="module")
def copies(apart: Apart, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    copied(apart, folder / "base", base_model_name_or_path=str(apart.world / "tied"))
    copied(apart, folder / "dora", use_dora=True, use_rslora=True)
    copied(apart, folder / "bias", lambda tensors: {**tensors, "base_model.model.model.norm.bias": torch.zeros(2)})
    copied(apart, folder / "module", partial(renamed, "k_proj", "kproj"))
    copied(apart, folder / "shape", cut)
    copied(apart, folder / "rank", r=3)
    copied(apart, folder / "values", lambda tensors: {name: tensor / 0 for name, tensor in tensors.items()})
    copied(
        apart,
        folder / "half",
        lambda tensors: {k: v for k, v in tensors.items() if "0.self_attn.k_proj.lora_B" not in k},
    )
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(case: str, apart: Apart, copies: Path, tmp_path: Path) -> None:
    given, words = REFUSED[case]
    places = {**apart._asdict(), "home": apart.study.parents[1], "copies": copies}
    arguments = [text.format(**places) for text in given]
    said = run("export", "tiny", "--out", tmp_path / "out", "--merge", *arguments, code=2)
    assert all(word in said for word in words), said
    assert said.startswith("error: --") and len(said.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_trial_without_an_adapter(study: Path, apart: Apart, tmp_path: Path) -> None:
    said = run("export", study, "--out", tmp_path / "out", "--merge", apart.folder, code=2)
    assert "trial 1 has no adapter" in said and "lora" in said


def test_options_of_a_merge_need_one(apart: Apart, tmp_path: Path) -> None:
    said = run("export", "tiny", "--out", tmp_path / "out", "--combination", "svd", "--own-weight", "1", code=2)
    assert [line.split(": ")[1] for line in said.splitlines()] == ["--own-weight", "--combination"]


def test_weights_that_are_not_given() -> None:
    from dft_search.bundle.merge_request import merge_request

    for texts, own, expected in (
        (["a"], None, (0.5, 0.5)),
        (["a", "b"], None, (1 / 3, 1 / 3, 1 / 3)),
        (["a=0.3"], None, (0.7, 0.3)),
        (["a=1", "b=-0.5"], 2.0, (2.0, 1.0, -0.5)),
    ):
        found = merge_request(texts, own)
        assert found is not None and found.weights == pytest.approx(expected) and found.others[0] == "a"
