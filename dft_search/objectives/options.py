"""The ``objective`` section: which method, and how its terms read the model."""

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from dft_search.config import Options, Problem, RequestError
from dft_search.data.needs import ENGLISH, RowNeeds
from dft_search.objectives.alignment import AlignmentOptions
from dft_search.objectives.conversion import ConversionOptions
from dft_search.objectives.generation import GENERATION, GenerationOptions, generation_term, text_term
from dft_search.objectives.methods import Method
from dft_search.objectives.plugins import compose, load_plugins
from dft_search.objectives.preference import PreferenceOptions
from dft_search.objectives.readings import Reading
from dft_search.objectives.registry import BUILT_IN, all_methods, find_method
from dft_search.objectives.retention import RetentionOptions
from dft_search.objectives.section import TermContext, TermOptions
from dft_search.objectives.terms import PairTerm, Term
from dft_search.objectives.thinking import ThinkingOptions


def _known(name: str) -> str:
    if name not in all_methods():
        raise PydanticKnownError("literal_error", {"expected": ", ".join(f"'{method}'" for method in all_methods())})
    return name


MethodName = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(all_methods()), "type": "string"})]


class Objective(Options):
    """What a run minimizes.

    Attributes:
        method: ``dft`` (generation + conversion + thinking), ``tft`` (generation in the target language),
            ``sft`` (generation in English), ``lm`` (plain text), ``mid_align`` (generation in the target language +
            alignment), ``clo`` (generation in the target language + preference), ``sdrrl`` (generation on rows that are
            made of the parallel ones), or a method of an installed package, which may bring sections of its own.
        generation: languages of generation, and its mean; ``sft``, ``lm`` and ``sdrrl`` say themselves what they read.
        reading: how a logits supervision reads English tokens (``readings.py``).
        inner_norm: the final norm goes over inner states before the head.
        conversion: supervision at layer i.
        thinking: supervision at layer j.
        alignment: supervision at layer k: of ``mid_align``, and of ``dft`` where it is on.
        preference: of ``clo``.
        retention: beside any method that answers in the target language, where it is on.
    """

    method: MethodName = "dft"
    reading: Reading = "teacher_forced"
    inner_norm: bool = True
    generation: GenerationOptions = GenerationOptions()
    conversion: ConversionOptions = ConversionOptions()
    thinking: ThinkingOptions = ThinkingOptions()
    alignment: AlignmentOptions = AlignmentOptions()
    preference: PreferenceOptions = PreferenceOptions()
    retention: RetentionOptions = RetentionOptions()

    @property
    def sections(self) -> dict[str, TermOptions]:
        """All sections by name, whether the method reads them or not."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: options for name, options in found.items() if isinstance(options, TermOptions)}

    @property
    def supervisions(self) -> dict[str, TermOptions]:
        """The sections that add a term, by its name."""
        method = self._method
        found = {name: getattr(self, name) for name in method.reads}
        return {name: options for name, options in found.items() if name in method.always or options.on}

    @property
    def generates(self) -> str:
        """What the first generation term predicts: ``target``, ``english`` or ``text``."""
        return self.generation.languages[0] if self._chooses else self._method.generates

    @property
    def _chooses(self) -> bool:
        """Whether the method has a choice of languages."""
        return self._method.generates == "target" and not self.makes_rows

    @property
    def generation_names(self) -> tuple[str, ...]:
        """Names of the generation terms."""
        return self.generation.names if self._chooses else (GENERATION,)

    @property
    def crosses_answers(self) -> bool:
        """Whether the target answer is read after the English prompt too."""
        return any(options.crosses_answers for options in self.supervisions.values())

    @property
    def makes_rows(self) -> bool:
        """Whether the rows to train on are made of parallel ones."""
        return self._method.makes_rows

    @property
    def contrasts_rows(self) -> bool:
        """Whether the loss of a row depends on the rows of its micro-batch, whose number is then part of the loss."""
        return any(options.contrasts_rows for options in self.supervisions.values())

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names of the terms, in the order of every tensor over terms."""
        return (*self.generation_names, *self.supervisions)

    @property
    def needs(self) -> RowNeeds:
        """What all terms together read of a row."""
        needs = self._method.needs
        if self._chooses and "english" in self.generation.languages:
            needs = needs | ENGLISH if "target" in self.generation.languages else ENGLISH
        for options in self.supervisions.values():
            needs |= options.needs
        return needs

    @property
    def unread(self) -> set[str]:
        """Sections of plug-ins that the method does not read: no part of what is written, which others may read who
        have no such plug-in."""
        return {name for name in self.sections if name in PLUGGED and name not in self._method.reads}

    @property
    def _method(self) -> Method:
        return find_method(self.method)

    def resolved(self, num_layers: int) -> "Objective":
        """The same objective with percentages as layers of a model with ``num_layers`` blocks."""
        unread = self.unread  # stays unset, and so unwritten
        found = {name: options for name, options in self.sections.items() if name not in unread}
        return self.model_copy(update={name: options.resolved(num_layers) for name, options in found.items()})

    def terms(self, num_layers: int) -> tuple[Term, ...]:
        """The terms of the loss on a model with ``num_layers`` blocks.

        Raises:
            RequestError: a section gives its term another name than its own, or two terms compare pairs of answers.
        """
        context = TermContext(num_layers, self.reading, self.inner_norm)
        terms = {name: options.term(context) for name, options in self.resolved(num_layers).supervisions.items()}
        for name, term in terms.items():
            if term.name != name:
                raise RequestError(Problem(f"section '{name}' makes a term called '{term.name}'", expected=name))
        if len(pairs := [name for name, term in terms.items() if isinstance(term, PairTerm)]) > 1:
            # the head takes the pairs of one term
            said = f"{' and '.join(pairs)} compare pairs of answers"
            raise RequestError(Problem(said, key="recipe.objective", expected="one such term in a loss"))
        return (*self._generation(num_layers), *terms.values())

    def _generation(self, num_layers: int) -> list[Term]:
        if not self._chooses:
            generates = self._method.generates
            return [text_term(num_layers) if generates == "text" else generation_term(generates, num_layers)]
        weight = math.prod(options.generation_weight for options in self.supervisions.values())
        how: dict[str, Any] = {"weight": weight, "by_row": self.generation.reduction == "sum"}
        return [
            generation_term(language, num_layers, name=name, **how)
            for language, name in zip(self.generation.languages, self.generation.names, strict=True)
        ]

    def canonical(self) -> dict[str, Any]:
        """What is really used: two objectives with the same canonical form minimize the same loss."""
        on = self.supervisions
        form: dict[str, Any] = {"method": self._method.reduces_to.get(tuple(on), self.method)}
        generation = self.generation.used() if self._chooses else {}
        if generation == {"languages": ["english"]} and not on:
            return {"method": "sft"}
        if generation:
            form["generation"] = generation
        if any(options.uses_reading for options in on.values()):
            form |= {"reading": self.reading, "inner_norm": self.inner_norm}
        return form | {name: options.used() for name, options in on.items()}


PLUGGED = frozenset(name for plugin in load_plugins(BUILT_IN) for name in plugin.method.sections)
if not TYPE_CHECKING:  # sections of plug-ins are fields like the others, which no type checker can know
    Objective = compose(Objective, load_plugins(BUILT_IN))
