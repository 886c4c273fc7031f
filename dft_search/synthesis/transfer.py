"""The transfer set of SDRRL: rows made of parallel rows and a teacher's answers, by draws that only a seed decides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath

from dft_search.config import Problem, RequestError, expand_path
from dft_search.data.files import open_file
from dft_search.data.row import MadeRow, Row
from dft_search.data.transfer import ALIGNED, ALIGNER, PAIRINGS, TEACHERS, TransferOptions
from dft_search.synthesis.answers import Answer, unusable
from dft_search.synthesis.codeswitch import switch_words
from dft_search.synthesis.draws import drawn
from dft_search.synthesis.lexicon import Lexicon, learn_lexicon, read_lexicon
from dft_search.synthesis.names import language_name
from dft_search.synthesis.sentences import completion_rows, questions, read_sentences, translation_rows

KEY = "recipe.data.train.transfer"
ANSWER_IN = "Answer in {language}."  # of a row whose answer is in another language than its question

Question = tuple[str, str]  # English instruction and input
SIDES = {  # languages of question and answer
    "distil_en": ("en", "en"),
    "distil_tgt": ("tgt", "tgt"),
    "cross_tgt_en": ("tgt", "en"),
    "cross_en_tgt": ("en", "tgt"),
}


@dataclass(frozen=True)
class Transfer:
    """What was made.

    Attributes:
        rows: in order of their kinds.
        counts: kind -> rows; ``answers_of_teacher``; ``answers_kept:REASON``: the row's own answer stands, because of
            the teacher's.
        dropped: reason -> parallel rows, or copies, that nothing was made of.
    """

    rows: list[MadeRow]
    counts: dict[str, int]
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A question and an answer of each of the parallel rows, in both languages."""

    row: Row
    english: str
    target: str
    teacher: str
    mt: str


_learned = lru_cache(maxsize=1)(learn_lexicon)  # seconds, and the trials of a study have the same rows


def question(row: Row) -> Question:
    """What the teacher is asked about a row."""
    return row.en_instruction, row.en_input


def make_transfer(
    rows: Sequence[Row], options: TransferOptions, language: str, answers: Mapping[Question, Answer] | None
) -> Transfer:
    """Make the transfer set. A pure function of its arguments and the files that the options name.

    Args:
        rows: parallel rows.
        options: which kinds, how many.
        language: code of the target language.
        answers: of the teacher; None to see the rows with their own answers.

    Raises:
        RequestError: a file that the options name is wrong, or no row is left.

    Paper: SDRRL, transfer set (Zhang et al. 2024): four pairings of languages, code-switching, translation, completion
    Test: tests/synthesis/test_transfer.py::test_presets_select_kinds_in_their_shares;
        tests/synthesis/test_transfer.py::test_pairings_hold_question_and_answer_of_their_languages
    Default: preset `sdrrl_paper`
    Open: shares and rates of all kinds are ours (`data.train.transfer`)
    """
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    weights = options.weights
    pairs = _pairs(rows, options, answers, counts, dropped)
    drafts = [draft for kind in PAIRINGS for draft in _paired(pairs, kind, weights[kind], options.seed)]
    made = [_stated(row, language) for row in drafts]
    if weights["codeswitch"] > 0 and drafts:
        switched = _switched(drafts, rows, options, round(weights["codeswitch"] * len(drafts)), dropped)
        made += [replace(_stated(row, language), kind="codeswitch") for row in switched]
    wanted = {kind: round(weights[kind] * len(drafts)) for kind in ("translation", "completion")}
    if any(wanted.values()):
        sentences = questions(rows) if options.parallel is None else read_sentences(options.parallel)
        made += translation_rows(sentences, wanted["translation"], language, options.seed)
        made += completion_rows(sentences, wanted["completion"], language, options.seed)
    if not made:
        told = ", ".join(f"{reason} {count}" for reason, count in dropped.items()) or "all weights are 0"
        raise RequestError(Problem(f"no row was made; {told}", key=KEY, expected="kinds with weights above 0"))
    counts.update(row.kind for row in made)
    return Transfer(made, dict(counts), dict(dropped))


def _pairs(
    rows: Sequence[Row],
    options: TransferOptions,
    answers: Mapping[Question, Answer] | None,
    counts: Counter[str],
    dropped: Counter[str],
) -> list[_Pair]:
    """The answers of every row: the teacher's and their translation, else its own in both languages."""
    given = options.answers_target
    translated = _read_answers(given) if isinstance(given, str) and given != ALIGNED else {}
    teacher = options.teacher if options.teacher in TEACHERS else _name(options.teacher)
    mt = _name(given) if isinstance(given, str) else _name(given.translator)
    pairs = []
    for row in rows:
        own = _Pair(row, row.en_output, row.tgt_output, "", ALIGNED)
        if answers is None or not options.needs_answers:
            known = translated.get(row.id, "").strip()
            pairs.append(replace(own, target=known, mt=mt) if known else own)
            continue
        answer = answers.get(question(row), Answer("", False))
        reason = unusable(answer)
        target = answer.target if options.translator else translated.get(row.id, "")
        target = row.tgt_output if given == ALIGNED else target
        reason = reason or (None if target.strip() else "no_translation")
        if reason is None:
            counts["answers_of_teacher"] += 1
            pairs.append(_Pair(row, answer.text.strip(), target, teacher, mt))
        elif options.fallback == "drop":
            dropped[f"answer_{reason}"] += 1
        else:
            counts[f"answers_kept:{reason}"] += 1
            pairs.append(own)
    return pairs


def _paired(pairs: Sequence[_Pair], kind: str, weight: float, seed: int) -> list[MadeRow]:
    """Rows of one pairing of languages: a share of all pairs."""
    question_side, answer_side = SIDES[kind]
    made = []
    for turn, number in drawn([pair.row.id for pair in pairs], round(weight * len(pairs)), seed, kind):
        pair = pairs[number]
        made.append(
            MadeRow(
                id=f"{pair.row.id}/{kind}" + (f"/{turn + 1}" if turn else ""),
                tgt_instruction=getattr(pair.row, f"{question_side}_instruction"),
                tgt_input=getattr(pair.row, f"{question_side}_input"),
                tgt_output=pair.english if answer_side == "en" else pair.target,
                kind=kind,
                teacher=pair.teacher if answer_side == "en" or pair.mt != ALIGNED else "",
                mt=pair.mt if answer_side == "tgt" else "",
                seed=seed,
            )
        )
    return made


def _switched(
    drafts: Sequence[MadeRow], rows: Sequence[Row], options: TransferOptions, count: int, dropped: Counter[str]
) -> list[MadeRow]:
    """Copies of ``count`` rows with words of the other language; what has no known word is counted."""
    given = options.codeswitch
    lexicon = _learned(tuple(rows)) if given.lexicon == ALIGNER else read_lexicon(given.lexicon)
    found = []
    for turn, number in drawn([row.id for row in drafts], count, options.seed, "codeswitch"):
        row = drafts[number]
        draw = (options.seed, "words", row.id, turn)
        known = [_from(lexicon, side) for side in SIDES[row.kind]]
        instruction = switch_words(row.tgt_instruction, known[0], given.words, *draw, "instruction")
        text = switch_words(row.tgt_input, known[0], given.words, *draw, "input")
        if (instruction, text) == (row.tgt_instruction, row.tgt_input):
            dropped["codeswitch_without_known_word"] += 1
            continue
        answer = row.tgt_output
        if given.side == "both":
            answer = switch_words(answer, known[1], given.words, *draw, "output")
        name = f"{row.id}/codeswitch" + (f"/{turn + 1}" if turn else "")
        found.append(replace(row, id=name, tgt_instruction=instruction, tgt_input=text, tgt_output=answer))
    return found


def _from(lexicon: Lexicon, side: str) -> Mapping[str, str]:
    return lexicon.to_target if side == "en" else lexicon.to_english


def _stated(row: MadeRow, language: str) -> MadeRow:
    """The row; where question and answer are in two languages, it says in which one the answer is to be."""
    question_side, answer_side = SIDES[row.kind]
    if question_side == answer_side:
        return row
    sentence = ANSWER_IN.format(language="English" if answer_side == "en" else language_name(language))
    return replace(row, tgt_instruction=f"{row.tgt_instruction} {sentence}")


def _read_answers(path: str) -> dict[str, str]:
    """Id of a row -> answer in the target language."""
    key = f"{KEY}.answers_target"
    table = open_file(expand_path(path), key=key)
    found: dict[str, str] = {}
    for number, record in table.records:
        identity, answer = record.get("id"), record.get("answer")
        if not isinstance(answer, str) or not isinstance(identity, str | int):
            raise RequestError(table.problem(number, "is no answer", key=key, expected="id and answer"))
        found[str(identity)] = answer
    return found


def _name(path: str) -> str:
    """The last part of a path: the same on every machine."""
    return PurePosixPath(path.rstrip("/")).name
