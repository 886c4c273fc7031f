"""A live model as a language model of lm-evaluation-harness, its work spread over the ranks."""

import logging
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from dft_search.config import Problem, RequestError
from dft_search.evaluation.batches import plan, share
from dft_search.evaluation.generate import Text, decoding_of, generate, group
from dft_search.evaluation.likelihoods import Scored, score_batches
from dft_search.evaluation.spread import Mode, run
from dft_search.models.live import LiveModel
from dft_search.models.structure import num_layers

Encodings = dict[tuple[str, str], tuple[list[int], list[int]]]  # (context, continuation) -> their tokens

logger = logging.getLogger(__name__)


class Likelihood(tuple[float, bool]):
    """(log-likelihood in nats, greedy) of a continuation, as the harness expects it, with token counts beside it.

    Attributes:
        value: the log-likelihood of the scored tokens.
        tokens: length of the continuation.
        scored: tokens that fitted in the model's window; fewer than ``tokens`` only for an overlong continuation.
        matched: scored tokens that have the highest probability, given the right tokens before them.
    """

    value: float
    tokens: int
    scored: int
    matched: int

    def __new__(cls, value: float, tokens: int, scored: int, matched: int) -> "Likelihood":
        self = super().__new__(cls, (value, matched == scored))
        self.value, self.tokens, self.scored, self.matched = value, tokens, scored, matched
        return self


class LiveLM(TemplateLM):
    """Log-likelihoods and continuations under a live model, sharded or not.

    Tokens are those of the harness's own ``HFLM``: context and continuation are encoded together and cut at the length
    of the context alone, its trailing spaces moved to the continuation; a text that is too long loses its beginning.
    Two cases in which ``HFLM`` stops are scored: a continuation that the tokenizer merges into the context is encoded
    by itself, and one that is longer than the window by itself is scored up to the window's length.

    To the harness this is one process (``rank`` 0 of 1): every rank is given all requests and returns all results.
    """

    def __init__(self, live: LiveModel, encodings: Encodings | None = None, mode: Mode = "auto"):
        """Take the model.

        Args:
            live: the model on its ranks.
            encodings: tokens of earlier requests under its tokenizer; filled further.
            mode: how ranks share a sharded model, see ``spread.run``.
        """
        super().__init__()
        self._live = live
        self._mode = mode
        self._device = live.device
        self._encodings = {} if encodings is None else encodings
        self.tokenizer = live.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a continuation without context: beginning of sequence, else end of sequence."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; the tokenizer adds its special tokens unless the text has them or the flag says no."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair = self._encodings.get((context, continuation))
        if pair is None:
            pair = super()._encode_pair(context, continuation)
            if not pair[1]:
                pair = pair[0], self.tok_encode(continuation, add_special_tokens=False)
            if not pair[1]:
                raise RequestError(Problem(f"the tokenizer has no token for the answer '{continuation.strip()[:60]}'"))
            self._encodings[context, continuation] = pair
        return pair

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Likelihood]:
        """Log-likelihood of every continuation given its context. Collective: all ranks pass the same requests.

        Args:
            requests: instances whose arguments are (context, continuation).
            disable_tqdm: as in the harness; off, since ranks would draw over each other.

        Returns:
            One result a request, in order, the same on every rank.
        """
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = True, **_: Any
    ) -> list[Likelihood]:
        live = self._live
        scored, batches = plan(
            [pair[1:] for pair in requests], live.max_length, num_layers(live.model), live.device.type
        )
        mine = share([batch.cost for batch in batches], live.world_size)[live.rank]
        found: list[Scored] = []
        results = run(live, score_batches(live, [batches[index] for index in mine], found), found, self._mode)
        answers: list[Likelihood] = []
        for (_request, value, matched), here, pair in zip(sorted(results), scored, requests, strict=True):
            answers.append(Likelihood(value, len(pair[2]), here, matched))
        overlong = sum(answer.scored < answer.tokens for answer in answers)
        if overlong and live.rank == 0:
            logger.warning("%d answers are longer than the window of %d tokens", overlong, live.max_length)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of whole texts. Collective: all ranks pass the same requests.

        As ``HFLM``: a text is cut into windows that do not overlap. A window's first token is predicted from the token
        before it (the text's first one from the prefix token), in the last window from as many as fit.

        Args:
            requests: instances whose arguments are (text,).
            disable_tqdm: as in the harness; off, since ranks would draw over each other.

        Returns:
            One sum a request, in order, the same on every rank.
        """
        windows: list[tuple[Any, list[int], list[int]]] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._live.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        sums = [0.0] * len(requests)
        for number, found in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[number] += found.value
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Greedy continuations. Collective: all ranks pass the same requests.

        As ``HFLM``: a prompt that leaves too little room for the continuation loses its beginning, special tokens are
        left out of the text, and the text ends before the first stop string or end of sequence.

        Args:
            requests: instances whose arguments are (prompt, options); see ``generate.decoding_of`` for the options.
            disable_tqdm: as in the harness; off, since ranks would draw over each other.

        Returns:
            One text a request, in order, the same on every rank.

        Raises:
            RequestError: an option asks for anything but greedy decoding.
        """
        live = self._live
        decodings = [decoding_of(live, request.args[1]) for request in requests]
        prompts = [self.tok_encode(request.args[0]) or [self.prefix_token_id] for request in requests]
        batches = group(prompts, decodings, live)
        mine = share([batch.cost for batch in batches], live.world_size)[live.rank]
        found: list[Text] = []
        results = run(live, generate(live, [batches[index] for index in mine], found), found, self._mode)
        return [text for _request, text, _ended in sorted(results)]
