"""What outlives a run in a warm process: base weights, tokenizer, encoded rows, the built modules.

A second run gets the same bits as in a fresh process. Modules are kept when the next recipe needs the same ones (their
weights are then put back in place), and are built again from the kept base weights when it does not.
"""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dft_search.config import expand_path
from dft_search.data.encode import Encoded, encode_rows
from dft_search.data.options import FileJoin, HubSet, TrainOptions, with_transfer_paths
from dft_search.models.live import LiveModel
from dft_search.models.loading import load_model, load_tokenizer
from dft_search.models.options import ModelOptions
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.terms import uses_base
from dft_search.synthesis.answers import Answer
from dft_search.synthesis.transfer import Question
from dft_search.training.options import LoraChoice
from dft_search.training.recipe import Recipe
from dft_search.training.reference import Reference, asked_of, read_reference
from dft_search.training.rows import training_rows
from dft_search.training.session import Session
from dft_search.training.sharding import fill, shard
from dft_search.training.trainable import base_name, initial_adapter, set_trainable

T = TypeVar("T")
KEPT_SETS = 4  # encoded data sets: a study alternates between its methods, not between many files


@dataclass
class Built:
    """A model that is ready to train.

    Attributes:
        module: computes the losses; what is called, and the root of the sharding.
        live: the model inside it, with tokenizer and place.
        compute: type that it computes in.
    """

    module: ObjectiveModule
    live: LiveModel
    compute: torch.dtype

    @property
    def model(self) -> PreTrainedModel:
        return self.live.model


class Workspace:
    """Keeps things between runs. One a process; an empty one is a cold start."""

    def __init__(self) -> None:
        self._tokenizer: dict[Hashable, PreTrainedTokenizerBase] = {}
        self._base: dict[Hashable, PreTrainedModel] = {}
        self._built: dict[Hashable, Built] = {}
        self._encoded: dict[Hashable, Encoded] = {}
        self._reference: dict[Hashable, Reference | None] = {}

    def tokenizer(self, options: ModelOptions) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return _kept(self._tokenizer, options.model_dump_json(), lambda: load_tokenizer(options), 1)

    def base(self, options: ModelOptions) -> PreTrainedModel:
        """The base model on the CPU, as loaded. Never trained, never changed."""
        return _kept(self._base, options.model_dump_json(), lambda: load_model(options), 1)

    def _base_of(self, recipe: Recipe) -> PreTrainedModel:
        """The base model in the type that its trainable part starts from."""
        options = recipe.model
        if options.dtype == "bfloat16" and not isinstance(recipe.training.trainable, LoraChoice):
            options = options.model_copy(update={"dtype": "float32"})  # masters lose nothing that the file has
        return self.base(options)

    def encoded(self, recipe: Recipe, answers: Mapping[Question, Answer] | None = None) -> Encoded:
        """The recipe's rows as token segments.

        Args:
            recipe: whose files are read.
            answers: of the teacher, where the method makes its rows.
        """
        needs, text, crossed = recipe.needs, recipe.objective.conversion.text, recipe.objective.crosses_answers
        stamps = (_stamps(recipe.data.train), None if answers is None else hash(frozenset(answers.items())))
        key = (recipe.model.model_dump_json(), recipe.data.model_dump_json(), needs, text, crossed, stamps)

        def encode() -> Encoded:
            rows = training_rows(recipe, answers)
            return encode_rows(rows, self.tokenizer(recipe.model), recipe.data, query_text=text, crossed=crossed)

        return _kept(self._encoded, key, encode, KEPT_SETS)

    def build(self, recipe: Recipe, session: Session, seed: int) -> Built:
        """The recipe's model with its first weights, sharded over the session's ranks. Collective.

        Args:
            seed: of the run; adapters start from it.
        """
        key = (
            recipe.model.model_dump_json(),
            recipe.training.model_dump_json(include={"trainable", "activation_checkpointing"}),
            session.world_size,
            str(session.device),
        )
        if key not in self._built:
            self._built.clear()  # the old modules must be gone before new ones take memory
        built = _kept(self._built, key, lambda: self._assemble(recipe, session), 1)
        built.module.terms = recipe.objective.terms(built.model.config.num_hidden_layers)
        built.live.max_length = recipe.data.max_length
        _reset(built, self._base_of(recipe), seed)
        return built

    def reference(
        self,
        recipe: Recipe,
        place: str,
        data: Encoded,
        fingerprint: str | None,
        session: Session,
        stop: Callable[[], bool],
        wanted: Sequence[int] | None = None,
    ) -> Reference | None:
        """What the untrained base says of the rows to the recipe's terms, right after ``build``. Collective.

        Args:
            place: folder or URL of what a study keeps.
            data: the recipe's rows.
            fingerprint: of the base's weights.
            stop: whether to stop, as rank 0 has it.
            wanted: numbers of the rows that will be read, ascending; None: all.

        Raises:
            Interrupted: it was to stop; the finished parts are kept.
        """
        built, terms = self.latest, recipe.objective.terms(self.latest.model.config.num_hidden_layers)
        asked = tuple((term.name, str(asked_of(term, data))) for term in terms if uses_base(term))
        options = recipe.model.model_dump(include={"path", "revision", "dtype"})
        facts = {"base": fingerprint, "model": None if fingerprint else options, "compute": str(built.compute)}
        key = (place, asked, data.fingerprint, str(facts), None if wanted is None else tuple(wanted))

        def read() -> Reference | None:
            return read_reference(place, recipe.objective, built.module, built.live, data, facts, session, stop, wanted)

        return _kept(self._reference, key, read, 1) if asked else None

    @property
    def latest(self) -> Built:
        """What the latest run trained, as that run left it."""
        return next(reversed(self._built.values()))

    def _assemble(self, recipe: Recipe, session: Session) -> Built:
        compute: torch.dtype = getattr(torch, recipe.model.dtype)
        model = copy.deepcopy(self._base_of(recipe))
        set_trainable(model, recipe.training.trainable, compute)
        if recipe.training.activation_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.config.dtype = compute  # what an export is written in
        module = ObjectiveModule(model, recipe.objective)
        shard(module, model, session, compute)
        live = LiveModel(
            model=model,
            tokenizer=self.tokenizer(recipe.model),
            device=session.device,
            rank=session.rank,
            world_size=session.world_size,
            max_length=recipe.data.max_length,
            root=module,
        )
        return Built(module, live, compute)


def _reset(built: Built, base: PreTrainedModel, seed: int) -> None:
    """Every weight as at the start of a run; gradients gone."""
    first = dict(base.named_parameters())
    for name, parameter in built.model.named_parameters():
        parameter.grad = None
        value = initial_adapter(name, parameter.shape, seed)
        fill(parameter, first[base_name(name)] if value is None else value)
    built.module.train()


def _kept(store: dict[Hashable, T], key: Hashable, make: Callable[[], T], most: int) -> T:
    """``store[key]``, made if absent; only the ``most`` recently used entries stay."""
    value = store.pop(key) if key in store else make()
    store[key] = value
    while len(store) > most:
        del store[next(iter(store))]
    return value


def _stamps(train: TrainOptions) -> tuple[tuple[str, int, int], ...]:
    """Size and time of the local files behind the rows, so that an edited file is read again."""
    names: list[str] = []
    for entry in train.files:
        if isinstance(entry, FileJoin):
            names += [entry.english, entry.target]
        elif not isinstance(entry, HubSet):
            names.append(entry)
    with_transfer_paths(train.transfer, lambda path: names.append(path) or path)  # type: ignore[func-returns-value]
    paths = [Path(expand_path(name)) for name in names]
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file())
