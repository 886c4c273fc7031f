"""Options of a transfer set: which rows a study makes of its parallel rows for the method ``sdrrl``."""

from typing import Annotated, Literal

from pydantic import Field

from dft_search.config import Options

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]

PAIRINGS = ("distil_en", "distil_tgt", "cross_tgt_en", "cross_en_tgt")
ALIGNER, ALIGNED = "aligner", "aligned"
TEACHERS = ("sft", "base")  # the others are paths

PRESETS = {
    "sdrrl_paper": {
        "distil_en": 1.0, "distil_tgt": 1.0, "cross_tgt_en": 0.5, "cross_en_tgt": 0.5,
        "codeswitch": 0.5, "translation": 0.1, "completion": 0.1,
    },
    "sdrrl_dft_baseline": {
        "distil_en": 1.0, "distil_tgt": 0.0, "cross_tgt_en": 0.0, "cross_en_tgt": 0.0,
        "codeswitch": 0.5, "translation": 0.1, "completion": 0.1,
    },
}  # fmt: skip


class KindWeights(Options):
    """How many rows of each kind; what is not set is as the preset has it.

    Attributes:
        distil_en: English question, English answer of the teacher: a share of the parallel rows (1: one of each).
        distil_tgt: target question, target answer: likewise.
        cross_tgt_en: target question, English answer: likewise.
        cross_en_tgt: English question, target answer: likewise.
        codeswitch: copies of these four with words of the other language: a share of the four together.
        translation: translations of parallel sentences: likewise.
        completion: sentences of the target language to be ended: likewise.
    """

    distil_en: Weight | None = None
    distil_tgt: Weight | None = None
    cross_tgt_en: Weight | None = None
    cross_en_tgt: Weight | None = None
    codeswitch: Weight | None = None
    translation: Weight | None = None
    completion: Weight | None = None


class CodeswitchOptions(Options):
    """Words of a question replaced by those of the other language.

    Attributes:
        words: share of the content words that the lexicon knows.
        side: ``question`` leaves the answer as it is.
        lexicon: a file of word pairs (``english<TAB>target`` lines, or JSON lines with ``english`` and ``target``), or
            ``aligner``: learned from the parallel rows.
    """

    words: Share = 0.3
    side: Literal["question", "both"] = "question"
    lexicon: Name = ALIGNER


class ParallelFiles(Options):
    """Two text files whose lines translate each other."""

    english: Name
    target: Name


class TranslatorChoice(Options):
    """``{translator: MODEL}``: a translation model translates the teacher's answers, as ``data translate`` does."""

    translator: Name
    revision: Name | None = None
    beams: Annotated[int, Field(ge=1)] = 4


class TeacherTraining(Options):
    """How the teacher ``sft`` is trained before it answers; the rest is as in the recipe."""

    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3.0
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-5
    batch_rows: Annotated[int, Field(ge=1)] = 128


class TransferOptions(Options):
    """The transfer set of ``sdrrl``. Only the teacher's answers cost computation; the rest is made anew each time.

    Shares, rates and the tool for code-switching of the paper (Zhang et al. 2024, arXiv 2402.12204) are not known to
    us: these are the defaults of a re-implementation.

    Attributes:
        preset: ``sdrrl_paper`` has all kinds; ``sdrrl_dft_baseline`` those that the DFT paper (arXiv 2503.01275) names
            for its baseline: English, its code-switched copies, translations and completions.
        kinds: other weights than the preset's.
        teacher: who answers the English questions: ``sft``, the model of the recipe after training on the English side;
            ``base``, the model as it is; or the path of a model.
        teacher_training: of the teacher ``sft``.
        fallback: what becomes of a row whose answer is unusable: it keeps its own, or the rows with it are left out.
        max_new_tokens: of an answer; a longer one is unusable.
        codeswitch: how words are replaced.
        parallel: sentences for translation and completion; by default the questions of the rows.
        answers_target: the answers in the target language: ``aligned``, each row's own; a file of JSON lines with
            ``id`` and ``answer``, translated from the teacher's; or ``{translator: MODEL}``, which translates them.
        seed: of all draws.
    """

    preset: Literal["sdrrl_paper", "sdrrl_dft_baseline"] = "sdrrl_paper"
    kinds: KindWeights = KindWeights()
    teacher: Name = "sft"
    teacher_training: TeacherTraining = TeacherTraining()
    fallback: Literal["ground_truth", "drop"] = "ground_truth"
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    codeswitch: CodeswitchOptions = CodeswitchOptions()
    parallel: ParallelFiles | None = None
    answers_target: Name | TranslatorChoice = ALIGNED
    seed: int = 0

    @property
    def weights(self) -> dict[str, float]:
        """Kind -> weight: what is set, else the preset's."""
        return PRESETS[self.preset] | self.kinds.model_dump(exclude_none=True)

    @property
    def needs_answers(self) -> bool:
        """Whether any kind of row has an answer of the teacher, in English or translated."""
        kinds = ("distil_en", "cross_tgt_en") + (("distil_tgt", "cross_en_tgt") if self.translator else ())
        return any(self.weights[kind] > 0 for kind in kinds)

    @property
    def translator(self) -> TranslatorChoice | None:
        """The model that translates the teacher's answers, if one does."""
        return self.answers_target if isinstance(self.answers_target, TranslatorChoice) else None
