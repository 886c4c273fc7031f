"""What the DFT paper reports (arXiv 2503.01275, Tables 1 to 4), to stand beside a study of its model and language."""

from collections.abc import Sequence

from dft_search.report.collect import StudyView

LLAMA, GEMMA = "llama-2-7b", "gemma-2-2b"
#: Columns of Tables 1 and 2: the paper's data set, the language, and our tasks that ask the same (F1, MC1, accuracy).
COLUMNS = (
    *(("XQuAD", language, (f"xquad_{language}", f"xquad_mlqaf1_{language}")) for language in ("vi", "ar", "zh")),
    *(("MLQA", language, (f"mlqa_{language}",)) for language in ("vi", "ar", "zh")),
    *(("TruthfulQA", language, (f"truthfulqa_{language}",)) for language in ("vi", "ar", "zh")),
    *(("MKQA", language, (f"mkqa_full_{language}", f"mkqa_{language}")) for language in ("vi", "ar", "zh")),
    *(("XNLI", language, (f"xnli_{language}",)) for language in ("vi", "ar", "zh")),
    *(("XCOPA", language, (f"xcopa_{language}", f"xcopa_hub_{language}")) for language in ("vi", "zh")),
    *(("XStoryCloze", language, (f"xstorycloze_{language}",)) for language in ("ar", "zh")),
    *(("MMLU", language, (f"m_mmlu_{language}",)) for language in ("vi", "ar", "zh")),
)
ROWS = {
    LLAMA: {
        ("sft", "none", "none"): "23.11 19.42 3.34 22.79 19.18 6.91 29.37 29.11 30.49 33.16 32.84 33.51 "
        "36.59 35.38 36.39 63.00 65.00 49.70 59.56 29.37 27.6 30.49",
        ("tft", "none", "none"): "27.36 21.23 23.41 28.80 21.62 23.86 28.54 27.04 26.40 38.59 35.02 40.70 "
        "44.14 33.73 36.87 66.00 65.00 57.51 64.06 33.23 28.05 32.34",
        ("sdrrl", "none", "none"): "28.79 25.75 22.01 29.59 27.26 24.67 28.03 28.11 28.30 39.20 35.81 40.63 "
        "43.41 33.98 37.43 65.40 65.20 58.17 64.53 31.91 27.47 32.74",
        ("dft", "logits", "logits"): "29.65 27.57 24.77 31.54 28.26 25.68 28.64 28.81 28.93 39.64 35.84 40.87 "
        "43.37 34.06 36.94 66.20 66.40 58.78 64.93 32.60 29.06 33.19",
        ("dft", "feature", "feature"): "28.27 26.35 24.34 32.19 29.51 25.29 28.61 28.34 28.00 39.36 35.65 40.90 "
        "43.50 34.38 37.64 66.60 68.60 58.78 64.40 32.19 28.86 32.82",
    },
    GEMMA: {
        ("sft", "none", "none"): "19.02 18.82 9.74 20.21 20.45 11.79 30.45 28.98 27.79 36.04 33.69 32.46 "
        "41.33 35.62 40.36 68.60 70.40 61.02 68.23 36.07 31.16 36.22",
        ("tft", "none", "none"): "17.58 24.73 15.95 20.26 25.31 18.26 26.44 26.26 24.87 36.84 34.49 40.20 "
        "43.05 33.94 36.63 67.00 70.40 61.48 64.88 36.95 32.71 36.37",
        ("sdrrl", "none", "none"): "17.55 18.16 12.03 19.89 23.91 14.24 26.62 26.52 26.39 37.69 34.51 40.75 "
        "42.25 36.31 39.20 65.40 66.60 61.09 63.20 34.47 31.31 34.23",
        ("dft", "logits", "logits"): "21.23 25.79 17.37 24.36 27.51 20.13 27.34 26.78 27.16 38.59 34.81 40.84 "
        "43.29 35.14 38.46 68.40 70.60 62.08 66.91 36.89 31.84 35.30",
        ("dft", "feature", "feature"): "22.78 27.38 16.94 22.19 30.18 19.51 27.88 27.64 26.90 38.04 34.73 40.87 "
        "43.25 36.73 39.74 67.20 70.20 61.88 66.25 36.70 31.63 34.43",
    },
}
#: Table 3 (LLaMA-2-7B, Chinese) beside TFT: either supervision alone, in the order of ALONE_COLUMNS.
ALONE_COLUMNS = ("XQuAD", "MLQA", "TruthfulQA", "MKQA", "XNLI", "XCOPA", "XStoryCloze", "MMLU")
ALONE = {
    ("dft", "logits", "none"): "24.75 25.62 27.11 40.73 36.27 65.60 63.60 32.75",
    ("dft", "feature", "none"): "23.99 24.27 27.51 40.81 36.59 66.80 64.92 33.73",
    ("dft", "none", "logits"): "24.47 25.68 28.93 40.83 37.61 66.40 64.95 33.29",
    ("dft", "none", "feature"): "24.26 24.80 28.00 40.70 37.75 68.40 64.26 32.85",
}
#: Table 4 (LLaMA-2-7B): COMET on FLORES-200, English to Chinese and back.
TRANSLATION = ("flores200_comet_en-zh", "flores200_comet_zh-en")
TRANSLATIONS = {
    ("tft", "none", "none"): (68.37, 63.12),
    ("dft", "logits", "none"): (36.79, 64.10),
    ("dft", "feature", "none"): (75.62, 82.58),
    ("dft", "none", "logits"): (46.50, 63.68),
    ("dft", "none", "feature"): (74.49, 83.98),
}


def paper_rows(view: StudyView, names: Sequence[str]) -> list[tuple[tuple[str, str, str], dict[str, float]]]:
    """The paper's rows, (method, conversion, thinking) with its numbers by column, in the unit of the columns.

    Empty unless the study is of one of its models and of a language that it reports.

    Args:
        view: the study.
        names: columns to be filled; those that the paper does not have stay empty.
    """
    model = next((name for name in ROWS if name in str(view.model).lower()), None)
    if model is None or view.language not in ("vi", "ar", "zh"):
        return []
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for kind, numbers in ROWS[model].items():
        for (_, language, tasks), number in zip(COLUMNS, numbers.split(), strict=True):
            if language == view.language:
                found.setdefault(kind, {}).update(_of(names, tasks, float(number)))
    if model == LLAMA and view.language == "zh":
        by_set = {(name, language): tasks for name, language, tasks in COLUMNS}
        for kind, numbers in ALONE.items():
            for name, number in zip(ALONE_COLUMNS, numbers.split(), strict=True):
                found.setdefault(kind, {}).update(_of(names, by_set[name, "zh"], float(number)))
        for kind, both in TRANSLATIONS.items():
            for task, comet in zip(TRANSLATION, both, strict=True):
                found.setdefault(kind, {}).update({task: comet} if task in names else {})
    return [(kind, numbers) for kind, numbers in found.items() if numbers]


def _of(names: Sequence[str], tasks: Sequence[str], percent: float) -> dict[str, float]:
    """A number of the paper under the names of our tasks, as a share, which their scores are."""
    return {task: percent / 100 for task in tasks if task in names}
