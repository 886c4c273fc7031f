"""The codes by which a translation model knows languages, and which of them a user means."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dft_search.config import Problem, RequestError, nearest

if TYPE_CHECKING:  # a slow import, needed for the names of types alone
    from transformers import PreTrainedTokenizerBase

# ISO 639-1 codes as NLLB-200 writes languages (facebookresearch/flores, README); zh stands for simplified characters
_FLORES = {
    "af": "afr_Latn", "am": "amh_Ethi", "ar": "arb_Arab", "az": "azj_Latn", "be": "bel_Cyrl", "bg": "bul_Cyrl",
    "bn": "ben_Beng", "bs": "bos_Latn", "ca": "cat_Latn", "cs": "ces_Latn", "cy": "cym_Latn", "da": "dan_Latn",
    "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn", "eo": "epo_Latn", "es": "spa_Latn", "et": "est_Latn",
    "eu": "eus_Latn", "fa": "pes_Arab", "fi": "fin_Latn", "fr": "fra_Latn", "ga": "gle_Latn", "gl": "glg_Latn",
    "gu": "guj_Gujr", "ha": "hau_Latn", "he": "heb_Hebr", "hi": "hin_Deva", "hr": "hrv_Latn", "hu": "hun_Latn",
    "hy": "hye_Armn", "id": "ind_Latn", "ig": "ibo_Latn", "is": "isl_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "jv": "jav_Latn", "ka": "kat_Geor", "kk": "kaz_Cyrl", "km": "khm_Khmr", "kn": "kan_Knda", "ko": "kor_Hang",
    "ky": "kir_Cyrl", "lo": "lao_Laoo", "lt": "lit_Latn", "lv": "lvs_Latn", "mk": "mkd_Cyrl", "ml": "mal_Mlym",
    "mn": "khk_Cyrl", "mr": "mar_Deva", "ms": "zsm_Latn", "mt": "mlt_Latn", "my": "mya_Mymr", "ne": "npi_Deva",
    "nl": "nld_Latn", "no": "nob_Latn", "pa": "pan_Guru", "pl": "pol_Latn", "ps": "pbt_Arab", "pt": "por_Latn",
    "ro": "ron_Latn", "ru": "rus_Cyrl", "rw": "kin_Latn", "sd": "snd_Arab", "si": "sin_Sinh", "sk": "slk_Latn",
    "sl": "slv_Latn", "so": "som_Latn", "sq": "als_Latn", "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn",
    "ta": "tam_Taml", "te": "tel_Telu", "tg": "tgk_Cyrl", "th": "tha_Thai", "tl": "tgl_Latn", "tr": "tur_Latn",
    "uk": "ukr_Cyrl", "ur": "urd_Arab", "uz": "uzn_Latn", "vi": "vie_Latn", "xh": "xho_Latn", "yo": "yor_Latn",
    "zh": "zho_Hans", "zh-cn": "zho_Hans", "zh-tw": "zho_Hant", "zu": "zul_Latn",
}  # fmt: skip
_ISO = {code: short for short, code in _FLORES.items() if short != "zh-cn"}
_ALSO = {"zh": "cmn"}  # another name of a language, which Marian's models use
_CODE = re.compile(r"_{0,2}([a-z]{2,3}(?:_[A-Za-z]{2,4})?)_{0,2}")
_PREFIX = re.compile(r">>(\w+)<<")


@dataclass(frozen=True)
class Target:
    """How a model is told which language to write.

    Attributes:
        source: the English code that the tokenizer is set to, None for a model that reads one language.
        code: of the language to write; None for a model that writes one language.
        token: the first token that is forced, if that is how the model is told.
        prefix: what stands before every text, if that is how.
    """

    source: str | None = None
    code: str | None = None
    token: int | None = None
    prefix: str = ""


def find_target(tokenizer: "PreTrainedTokenizerBase", language: str) -> Target:
    """What the model needs to be told to write ``language``.

    Args:
        tokenizer: of NLLB, M2M100, mBART-50 (a code token is forced), Marian (a prefix, or one language alone).
        language: the model's own code, or an ISO 639-1 code such as ``zh``.

    Raises:
        RequestError: the model does not write it; names the nearest code that it has.
    """
    prefixes = {match.group(1): token for token in tokenizer.get_vocab() if (match := _PREFIX.fullmatch(token))}
    if prefixes:
        return Target(code=(code := _choose(language, prefixes)), prefix=f"{prefixes[code]} ")
    codes = _codes(tokenizer)
    if codes:
        source, code = _choose("en", codes), _choose(language, codes)
        return Target(source=source, code=code, token=codes[code])
    only = getattr(tokenizer, "target_lang", None)
    if only is None:
        message = "the tokenizer names no languages, so it cannot be told to write one"
        raise RequestError(Problem(message, key="--model", expected="NLLB, M2M100, mBART-50 or Marian"))
    if _base(only) != _base(language):
        raise RequestError(Problem(f"the model writes {only}, not {language}", key="--language", nearest=only))
    return Target()


def iso_code(language: str) -> str:
    """The ISO 639-1 code of a language that is given by a model's code, or what was given where there is none."""
    return _ISO.get(language) or (_base(language) if _base(language) in _FLORES and "_" in language else language)


def _codes(tokenizer: Any) -> Mapping[str, int]:
    """Language code -> id of the token that stands for it."""
    known = getattr(tokenizer, "lang_code_to_id", None)  # M2M100 and mBART
    if known:
        return dict(known)
    tokens = {str(token): number for token, number in tokenizer.get_added_vocab().items()}
    return {match.group(1): tokens[token] for token in tokens if (match := _CODE.fullmatch(token))}


def _choose(language: str, codes: Mapping[str, Any]) -> str:
    if language in codes:
        return language
    plain = language.replace("_", "-").lower()
    flores = _FLORES.get(plain, "")
    if flores in codes:
        return flores
    names = {plain, _base(flores), _ALSO.get(plain)}  # of a whole language; one of a script or country is not guessed
    same = [code for code in codes if _base(code) in names and "-" not in plain]
    script = flores.partition("_")[2]
    for found in (same, [code for code in same if code.partition("_")[2] == script]):
        if len(found) == 1:
            return found[0]
    if same:  # one language in several scripts, or several countries
        message = f"the model writes '{language}' in several ways"
        raise RequestError(Problem(message, key="--language", expected="one of " + ", ".join(sorted(same))))
    near = nearest(language, codes) or nearest(plain, _FLORES)
    few = "one of " + ", ".join(sorted(codes)) if len(codes) <= 20 else f"one of the model's {len(codes)} codes"
    raise RequestError(Problem(f"the model does not know '{language}'", key="--language", expected=few, nearest=near))


def _base(code: str) -> str:
    return code.replace("_", "-").partition("-")[0].lower()
