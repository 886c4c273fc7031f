"""The same readings from a model that is sharded over several ranks, each of which reads a part of the prompts."""

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dft_search.data.encode import EncodedRow
from dft_search.evaluation.spread import Mode, run
from dft_search.layers.prompts import BatchReadings, PromptReadings, prompt_batches, put_together, read_batch
from dft_search.models import structure
from dft_search.models.attention import enable_segments
from dft_search.models.live import LiveModel
from dft_search.training.session import Session
from dft_search.training.sharding import shard


def spread_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, session: Session) -> LiveModel:
    """The model on the ranks of a session, sharded as training shards it, in its own type and without gradients.

    A single rank has it whole. Nothing is exchanged, once the session has its mesh.
    """
    model.requires_grad_(False)
    shard(model, model, session, model.dtype)
    return LiveModel(model, tokenizer, session.device, session.rank, session.world_size)


def read_on_ranks(
    live: LiveModel, rows: Sequence[EncodedRow], *, inner_norm: bool, mode: Mode = "auto"
) -> dict[str, PromptReadings]:
    """As ``prompts.read_prompts`` reads the whole model, batches of prompts spread over the ranks. Collective.

    An error on one rank is raised on every rank.

    Args:
        live: the model on its ranks. Its attention is switched for good.
        rows: with both sides, the same on every rank.
        inner_norm: as ``read_prompts``.
        mode: whether weights are gathered once, or block by block (``evaluation.spread.run``).

    Returns:
        Readings of all rows in their order, on every rank.
    """
    enable_segments(structure.causal_lm(live.model).config)
    batches = list(prompt_batches(rows, parts=live.world_size))
    found: list[tuple[int, BatchReadings]] = []

    def passes() -> Iterator[None]:
        for number in range(live.rank, len(batches), live.world_size):
            yield
            found.append((number, read_batch(live.model, batches[number], inner_norm)))

    everything = dict(run(live, passes(), found, mode))
    return put_together([everything[number] for number in range(len(batches))])
