"""Which language a text is in: py3langid's classifier, with related languages counted as one."""

from functools import cache
from typing import Any

CERTAIN = 0.9  # probability from which the classifier is believed
LETTERS = 24  # a text with fewer letters tells too little

# languages that short texts of a group are taken for; a text in one of them is none in a wrong language
_GROUPS = (
    ("zh", "wuu", "yue", "gan", "hak", "lzh", "cdo", "nan", "hsn", "cjy"),
    ("ar", "ary", "arz", "apc", "acm", "ajp", "aeb", "ars", "acq", "azb", "fa", "ur", "ckb", "ps", "ug", "sd"),
    ("no", "nb", "nn", "da", "sv"),
    ("id", "ms", "jv", "su", "min", "ban"),
    ("hr", "sr", "bs", "sh", "sl"),
    ("es", "gl", "pt", "ca", "ast", "oc", "an", "ext"),
    ("hi", "mr", "ne", "bh", "sa", "mai", "bho"),
    ("en", "sco", "simple"),
    ("de", "lb", "gsw", "bar", "nds"),
    ("ru", "uk", "be", "bg", "mk"),
    ("cs", "sk"),
    ("fr", "wa", "oc"),
    ("it", "scn", "vec", "lmo", "pms"),
)


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def knows(language: str) -> bool:
    """Whether the classifier can tell this language (a code such as ``zh`` or ``zh-TW``)."""
    return _base(language) in _classifier().labels


def certainly_not(text: str, language: str) -> str | None:
    """The language that ``text`` is surely in when that is not ``language`` or a relative of it, else None."""
    if sum(character.isalpha() for character in text) < LETTERS:
        return None
    found, probability = _classifier().classify(text)
    if probability < CERTAIN or found in _relatives(_base(language)):
        return None
    return str(found)


def _relatives(language: str) -> set[str]:
    return {language}.union(*(group for group in _GROUPS if language in group))


def _base(language: str) -> str:
    return language.replace("_", "-").partition("-")[0].lower()
