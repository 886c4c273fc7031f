"""A seq2seq model of transformers that translates English texts: NLLB, M2M100, mBART-50, Marian."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dft_search.config import Problem, RequestError
from dft_search.models.hub import Source, find_model
from dft_search.models.options import ModelOptions
from dft_search.synthesis.languages import Target, find_target

KEY = "--model"
SPEECH = {"speech_to_text", "whisper", "seamless_m4t"}
FACTOR, ROOM = 3, 32  # a translation has at most FACTOR x source tokens + ROOM
BATCH_TOKENS = 4096  # of a padded batch


@dataclass(frozen=True)
class TranslatorOptions:
    """Which model, to which language, how.

    Attributes:
        model: a folder, or a name on the hub.
        language: the model's code of it, or an ISO 639-1 code.
        beams: of the beam search; 1 is greedy.
        revision: of a hub repository.
    """

    model: str
    language: str
    beams: int = 4
    revision: str | None = None


def check_translator(options: TranslatorOptions) -> Target:
    """Find out, without loading weights, that the model is there and writes the language.

    Raises:
        RequestError: it is no seq2seq model, cannot be read, or does not know the language.
    """
    source = _find(options)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.name, revision=source.revision, local_files_only=source.local_only)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(_problem(options, f"has a config that is broken: {_one_line(error)}")) from None
    if not config.is_encoder_decoder or config.model_type in SPEECH:
        message = f"is a {config.model_type}, which translates no text"
        raise RequestError(replace(_problem(options, message), expected="NLLB, M2M100, mBART-50 or Marian"))
    return find_target(_tokenizer(options, source), options.language)


class Translator:
    """The loaded model.

    Args:
        options: checked by ``check_translator``.
        device: by default the first GPU, else the CPU.
    """

    def __init__(self, options: TranslatorOptions, device: str | None = None):
        import torch
        from transformers import AutoModelForSeq2SeqLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        source = _find(options)
        self.beams = options.beams
        self.tokenizer = _tokenizer(options, source)
        self.target = find_target(self.tokenizer, options.language)
        if self.target.source is not None:
            self.tokenizer.src_lang = self.target.source
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        # weights that are not in safetensors are read by torch with weights_only, never as code
        self.model = AutoModelForSeq2SeqLM.from_pretrained(
            source.name,
            revision=source.revision,
            local_files_only=source.local_only,
            dtype=torch.float32 if device == "cpu" else torch.float16,
        )
        self.model.to(device).eval()
        positions = getattr(self.model.config, "max_position_embeddings", None) or 512
        self.longest = min(int(positions), 1024) - 2

    def translate(self, texts: Sequence[str]) -> list[tuple[str, bool]]:
        """Translate texts, batched by length.

        Returns:
            For each text its translation, and whether it is whole: False where the text was too long for the model or
            the translation did not end.
        """
        prefixed = [self.target.prefix + text for text in texts]
        ids = self.tokenizer(prefixed, truncation=True, max_length=self.longest)["input_ids"]
        whole = self.tokenizer(prefixed, truncation=False, verbose=False)["input_ids"]
        found: list[tuple[str, bool]] = [("", False)] * len(texts)
        order = sorted(range(len(texts)), key=lambda number: (len(ids[number]), number))
        for batch in _batches(order, [len(tokens) for tokens in ids]):
            translated = self._generate([ids[number] for number in batch])
            for number, (text, ended) in zip(batch, translated, strict=True):
                found[number] = (text, ended and len(whole[number]) == len(ids[number]))
        return found

    def _generate(self, ids: Sequence[Sequence[int]]) -> list[tuple[str, bool]]:
        import torch

        inputs = self.tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt").to(self.model.device)
        forced = {} if self.target.token is None else {"forced_bos_token_id": self.target.token}
        room = min(self.longest, FACTOR * max(map(len, ids)) + ROOM)
        with torch.inference_mode():
            output = self.model.generate(
                **inputs, **forced, num_beams=self.beams, do_sample=False, max_length=None, max_new_tokens=room
            )
        texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        end = self.tokenizer.eos_token_id
        # the first token may be EOS itself: several models start decoding with it
        ended = [end in tokens[1:] for tokens in output.tolist()]
        return [(text.strip(), done) for text, done in zip(texts, ended, strict=True)]


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Numbers in order, as many at a time as a padded batch may hold."""
    batches: list[list[int]] = []
    for number in order:
        if batches and lengths[number] * (len(batches[-1]) + 1) <= BATCH_TOKENS:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def _find(options: TranslatorOptions) -> Source:
    try:
        return find_model(ModelOptions(path=options.model, revision=options.revision))
    except RequestError as error:
        raise RequestError([replace(problem, key=KEY) for problem in error.problems]) from None


def _tokenizer(options: TranslatorOptions, source: Source) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source.name, revision=source.revision, local_files_only=source.local_only)
    except ImportError as error:
        message = f"needs a library for its tokenizer: {_one_line(error)}"
        expected = "pip install 'dft-search[translate]'"
        raise RequestError(replace(_problem(options, message), expected=expected)) from None
    except Exception as error:  # the tokenizers library raises bare Exception for a broken file
        raise RequestError(_problem(options, f"has a tokenizer that cannot be loaded: {_one_line(error)}")) from error


def _problem(options: TranslatorOptions, message: str) -> Problem:
    return Problem(message, file=options.model, key=KEY)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
