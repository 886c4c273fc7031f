"""A teacher's answers to the English questions of a study: greedy, made once over all ranks, kept in parts."""

import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dft_search.config import Interrupted, expand_path
from dft_search.data.encode import encode_prompt
from dft_search.data.options import TrainOptions
from dft_search.data.rows import read_rows
from dft_search.data.subset import nested_order
from dft_search.data.transfer import TEACHERS, TransferOptions, TranslatorChoice
from dft_search.evaluation.generate import Decoding, Text, generate, group
from dft_search.evaluation.spread import run as run_spread
from dft_search.models.live import LiveModel
from dft_search.models.structure import causal_lm
from dft_search.synthesis.answers import Answer, unusable
from dft_search.synthesis.transfer import Question, question
from dft_search.synthesis.translate import translate_texts
from dft_search.synthesis.translator import Translator, TranslatorOptions
from dft_search.training import base
from dft_search.training.kept import Kept, make_once
from dft_search.training.options import Length, OptimizerOptions
from dft_search.training.places import is_remote, join, names, remove, upload
from dft_search.training.recipe import Recipe
from dft_search.training.reporter import Reporter, SilentReporter
from dft_search.training.seeds import derive
from dft_search.training.session import Session
from dft_search.training.together import together
from dft_search.training.workspace import Workspace

SUMMARY = "summary-{}-answers.json"  # beside the parts
logger = logging.getLogger(__name__)
PART = 64  # questions of one part: one batch of a rank, and what is lost when it is killed


class Teacher:
    """Who answers the questions of a recipe that makes its rows, and what was answered so far.

    Args:
        recipe: with a method that makes rows.
        workspace: whose models answer.
        session: the ranks.
        reporter: asked between two parts whether to stop.
        place: for what is kept; the same for all runs of a study.
        folder: of the run; the teacher ``sft`` keeps its checkpoints in it.
        micro_batch_rows: of its training, in place of what the recipe says or leaves to choice.
    """

    def __init__(
        self,
        recipe: Recipe,
        workspace: Workspace,
        session: Session,
        reporter: Reporter,
        *,
        place: str,
        folder: str,
        micro_batch_rows: int | None = None,
    ):
        self.recipe, self.workspace, self.session, self.reporter = recipe, workspace, session, reporter
        self.place, self._micro_batch_rows = place, micro_batch_rows
        self.options: TransferOptions = recipe.data.train.transfer
        self._school = join(folder, "teacher")  # checkpoints of the teacher's own training
        self._live: LiveModel | None = None

    def answers(self) -> dict[Question, Answer]:
        """All answers, those that are not kept yet made first. Collective; the same for any number of ranks.

        Raises:
            Interrupted: the reporter asked for a stop; the finished parts are kept.
        """
        asked, needed = _questions(self.recipe)
        parts = -(-needed // PART)
        if parts == 0:
            return {}
        kept = Kept(self.place, "answers", self._facts(asked), parts, ".json")

        def make(number: int | None) -> bytes | None:
            self._look_for_stop()
            self._live = self._live or self._teach()
            mine = [] if number is None else asked[number * PART : (number + 1) * PART]
            found = answer(self._live, mine, self.options.max_new_tokens, self.recipe.data.max_length)
            return None if number is None else json.dumps(found, ensure_ascii=False).encode()

        contents = make_once(kept, self.session, make, json.loads)
        if self.session.rank == 0:
            remove(self._school)  # large, and no run needs it any more
        answers = [Answer(text, ended) for part in contents for text, ended in part]
        together(self.session, lambda: self._note(kept, answers))
        if self.options.translator is not None:
            answers = self._translated(kept, answers, self.options.translator)
        return dict(zip(asked, answers, strict=False))  # fewer answers than questions, where fewer rows are used

    def _look_for_stop(self) -> None:
        """Between two parts. Collective."""
        if self.session.agree(self.session.rank == 0 and self.reporter.stop_requested(0)):
            raise Interrupted("stopped while rows were made; the parts so far are kept")

    def _translated(self, source: Kept, answers: list[Answer], choice: TranslatorChoice) -> list[Answer]:
        """The answers with their translations: part by part, like the answers. Collective."""
        language, model = self.recipe.data.target_language, expand_path(choice.translator)
        options = TranslatorOptions(model, language, choice.beams, choice.revision)
        told = {"answers": source.folder.rpartition("/")[2], "language": language, "beams": choice.beams}
        facts = {**told, **_weights(model), "revision": choice.revision}
        kept = Kept(self.place, "translations", facts, source.parts, ".json")
        loaded: list[Translator] = []

        def make(number: int | None) -> bytes | None:
            self._look_for_stop()
            return together(self.session, lambda: None if number is None else translated(number))

        def translated(number: int) -> bytes:
            if not loaded:
                loaded.append(Translator(options, str(self.session.device)))
            mine = answers[number * PART : (number + 1) * PART]
            texts = [one.text if unusable(one) is None else "" for one in mine]
            return json.dumps(translate_texts(texts, loaded[0].translate), ensure_ascii=False).encode()

        found = [text for part in make_once(kept, self.session, make, json.loads) for text in part]
        return [replace(one, target=text or "") for one, text in zip(answers, found, strict=True)]

    def _note(self, kept: Kept, answers: Sequence[Answer]) -> None:
        """Rank 0 writes beside the parts, for people, what has become of the questions."""
        summary = SUMMARY.format(len(answers))
        if self.session.rank != 0 or summary in names(kept.folder):
            return
        found = Counter(unusable(one) or "usable" for one in answers)
        told = {"teacher": self.options.teacher, "model": self.recipe.model.path, "answers": len(answers), **found}
        with tempfile.TemporaryDirectory(prefix="dft-search-") as scratch:
            draft = Path(scratch) / summary
            draft.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if is_remote(kept.folder):
                upload(draft, join(kept.folder, summary))
            else:
                shutil.copy(draft, join(kept.folder, summary))
        if found["usable"] * 2 < len(answers):
            logger.warning("only %d of %d answers of the teacher are usable: %s", found["usable"], len(answers), told)

    def _facts(self, asked: Sequence[Question]) -> dict[str, Any]:
        """Everything that the answers depend on."""
        recipe = self._recipe()
        facts = {
            "questions": asked,
            "model": _model_facts(recipe),
            "max_new_tokens": self.options.max_new_tokens,
            "max_length": recipe.data.max_length,
            "template": recipe.data.template,
            "part": PART,
        }
        if self.options.teacher == "sft":
            plain = recipe.canonical()
            skipped = ("micro_batch_rows", "activation_checkpointing")
            facts["training"] = {name: value for name, value in plain["training"].items() if name not in skipped}
            facts["rows"] = read_rows(recipe.data.train, needs=recipe.needs).fingerprint
        return facts

    def _recipe(self) -> Recipe:
        """The teacher's own recipe: plain SFT of the model on the English side, or a model that is used as it is."""
        given, teacher = self.recipe, self.options.teacher
        train = given.data.train.model_copy(
            update={"transfer": TransferOptions(), "english": "aligned", "english_rows": False}
        )
        changes: dict[str, Any] = {
            "data": given.data.model_copy(update={"train": train}),
            "objective": type(given.objective)(method="sft"),
            "scoring": None,
        }
        if teacher == "sft":
            own, rows = self.options.teacher_training, given.training.micro_batch_rows
            changes["training"] = type(given.training)(
                length=Length(epochs=own.epochs),
                batch_rows=own.batch_rows,
                micro_batch_rows=rows if rows == "auto" else min(rows, own.batch_rows),
                optimizer=OptimizerOptions(learning_rate=own.learning_rate),
                trainable=given.training.trainable,
                activation_checkpointing=given.training.activation_checkpointing,
            )
        elif teacher not in TEACHERS:
            changes["model"] = given.model.model_copy(update={"path": teacher, "revision": None})
        return given.model_copy(update=changes)

    def _teach(self) -> LiveModel:
        """The teacher's model, trained where it is to be. Collective."""
        from dft_search.training.loop import Run, run_training  # which calls this

        recipe, seed = self._recipe(), derive("teacher")
        if self.options.teacher == "sft":
            run = Run("teacher", seed, self._school, rungs=[], micro_batch_rows=self._micro_batch_rows)
            end = run_training(recipe, run, _Stoppable(self.reporter), self.session, self.workspace)
            if end.outcome == "interrupted":
                raise Interrupted("stopped while the teacher was trained")
            return self.workspace.latest.live
        return self.workspace.build(recipe, self.session, seed).live


class _Stoppable(SilentReporter):
    """Tells nothing of the teacher's training, and stops it when the run is to stop."""

    def __init__(self, outer: Reporter):
        self._outer = outer

    def stop_requested(self, step: int) -> bool:
        return self._outer.stop_requested(0)


def answer(live: LiveModel, asked: Sequence[Question], new_tokens: int, max_length: int) -> list[tuple[str, bool]]:
    """Greedy answers, and whether each came to its end. Collective; each rank has questions of its own, or none.

    A prompt of more than ``max_length`` tokens is not answered, since no row with it is trained on, nor one that leaves
    no room among the model's positions.

    Paper: SDRRL, the model's own English answers (self-distillation)
    Test: tests/training/test_teacher.py::test_a_run_learns_from_its_teacher
    Default: greedy
    Open: who answers, the base or the model tuned on English (`teacher`)
    """
    positions = getattr(causal_lm(live.model).config, "max_position_embeddings", None) or max_length + new_tokens
    new_tokens = min(new_tokens, positions // 2)
    longest = min(max_length, positions - new_tokens)
    prompts = [encode_prompt(*one, live.tokenizer) for one in asked]
    fitting = [number for number, tokens in enumerate(prompts) if len(tokens) < longest]
    decoding = Decoding((live.tokenizer.decode(live.tokenizer.eos_token_id),), new_tokens, 1.0)
    room = replace(live, max_length=longest + new_tokens)
    batches = group([prompts[number] for number in fitting], [decoding] * len(fitting), room, least=1)
    found: list[Text] = []
    run_spread(live, generate(live, batches, found), found, "auto")
    answers = [("", False)] * len(asked)
    for request, text, ended in found:
        answers[fitting[request]] = (text.strip(), ended)
    return answers


def _questions(recipe: Recipe) -> tuple[list[Question], int]:
    """Every question of the files once, in an order that a smaller number of rows shares, and how many are needed."""
    if not recipe.data.train.transfer.needs_answers:
        return [], 0
    train: TrainOptions = recipe.data.train
    rows = read_rows(train.model_copy(update={"rows": None}), needs=recipe.needs).rows
    order = nested_order(rows)
    asked = list(dict.fromkeys(question(rows[number]) for number in order))
    return asked, len({question(rows[number]) for number in order[: train.rows]})


def _model_facts(recipe: Recipe) -> Mapping[str, Any]:
    told = recipe.model.model_dump(mode="json", exclude={"path"}, exclude_none=True)
    return told | _weights(recipe.model.path)


def _weights(model: str) -> dict[str, str]:
    """What identifies a model and its tokenizer: what is in its folder, or its name on the hub."""
    folder = Path(expand_path(model))
    if not folder.is_dir():
        return {"weights": model}
    return {
        "weights": base.fingerprint(str(folder)),
        "tokenizer": base.hash_files(base.tokenizer_files(str(folder))),
    }
