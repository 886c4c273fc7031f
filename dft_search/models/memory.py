"""Memory that a training step takes on one worker at its highest, estimated from shapes alone.

The peak is near the end of the forward pass or in the head: everything at rest, what is gathered, and all that the
backward pass will need. Bytes of the activations' type are c, of the masters 4 (sharded training keeps them, and sums
gradients, in float32).

Legend: W workers, P parameters of which T train, D width, A = heads x head width, K = key heads x head width, I width
of the MLP, V vocabulary, n_k tokens that block k reads, M label rows.

* At rest, each over W: weights 4 T and c of what is frozen; gradients 4 T; AdamW's two moments 8 T (Loshchilov and
  Hutter). ZeRO (arXiv 1910.02054, section 3.1) counts the same 16 bytes a parameter.
* Gathered (W > 1, or masters of another type than c): the root (embedding, head, norm) for the whole step, two blocks
  (one is fetched ahead), and the whole gradients of root and one block before they are spread: in c, and in float32
  on their way.
* A block keeps for every token that it reads: two norms, each their input in float32, its normalized and its scaled
  value, (4 + 2c) D; queries and attention output 2 A, keys and values 2 K, gate and up 2 I (``models/mlp.py`` keeps no
  more; with an adapter or bias in the MLP it is 4 I), all times c. Qwen-3 norms queries and keys too: (4 + c) (A + K).
  Gemma-2 has two norms more and computes all of them in float32: (32 + 2c) D for the four; its capped attention keeps
  the scores of every pair (query, visible key) twice, 2 c a head. Korthikanti et al. (arXiv 2205.05198, equation 2)
  count 34 bytes a unit of width the same way for another block.
* With activation checkpointing: c D for every token and block, and one block's full share at a time.
* On its way back a block holds the gradients of what it keeps beside it: counted once more for the largest.
* The head: label states in c and normed, (4 + 3c) M D, their gradient c M D, one chunk of logits in float32 and its
  copy in c (``models/head.py``), the head's gradient in float32 and in c where it trains: (4 + c) V D.

Not counted: the CUDA context and libraries (about 1 GB), what the allocator cannot use for fragments, attention's own
workspace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dft_search.models.head import CPU_CHUNK_BYTES, GPU_CHUNK_BYTES
from dft_search.models.segments import Plan
from dft_search.models.sizes import parameter_count

MASTER = 4  # bytes of a trainable parameter at rest


@dataclass(frozen=True)
class Memory:
    """Bytes on one worker at the peak of a step.

    Attributes:
        rest: weights, gradients and optimizer state, this worker's share.
        gathered: weights and gradients of what is whole at the moment.
        activations: of the blocks, for the backward pass.
        head: states, logits and gradients of the vocabulary losses.
    """

    rest: int
    gathered: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.rest + self.gathered + self.activations + self.head


@dataclass(frozen=True)
class Training:
    """What about a run's options takes memory.

    Attributes:
        trainable: T; None for all parameters, the head among them.
        compute: c, bytes of an activation.
        adapters: low-rank adapters on a frozen base that is kept in c.
        checkpointing: blocks are computed again in the backward pass.
        workers: W.
        cuda: on GPUs.
    """

    trainable: int | None
    compute: int
    adapters: bool
    checkpointing: bool
    workers: int
    cuda: bool


def step_memory(config: Mapping[str, Any], plan: Plan, labels: int, training: Training, rows: int = 1) -> Memory:
    """The estimate for one micro-batch.

    Args:
        config: keys of the model's config.json.
        plan: the tokens of the micro-batch and how deep they are read.
        labels: M, over all terms that read the head.
        rows: the micro-batch holds plan and labels so many times.
    """
    return Memory(
        _rest(config, training),
        _gathered(config, training),
        rows * _activations(config, plan, training),
        _head(config, rows * labels, training),
    )


def _rest(config: Mapping[str, Any], training: Training) -> int:
    parameters = parameter_count(dict(config))
    moving = parameters if training.trainable is None else training.trainable
    frozen = parameters if training.adapters else parameters - moving
    return (moving * 4 * MASTER + frozen * training.compute) // training.workers


def _gathered(config: Mapping[str, Any], training: Training) -> int:
    if training.workers == 1 and training.compute == MASTER:
        return 0
    c, layers = training.compute, config["num_hidden_layers"]
    tables = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * config["hidden_size"]
    block = (parameter_count(dict(config)) - tables) // layers
    whole = c * (tables + 2 * block)
    if training.adapters:
        return whole
    return whole + (c * tables if training.trainable is None else 0) + (c + MASTER) * block


def _activations(config: Mapping[str, Any], plan: Plan, training: Training) -> int:
    width, c, layers = config["hidden_size"], training.compute, config["num_hidden_layers"]
    token, pair = _a_token(config, training), 0
    if config.get("attn_logit_softcapping"):
        pair = 2 * c * config["num_attention_heads"]
    blocks = []
    for block in range(1, layers + 1):
        alive = [segment for segment in plan.segments if segment.depth >= block]
        tokens = sum(len(segment.tokens) for segment in alive)
        pairs = sum(len(segment.tokens) * (segment.start + len(segment.tokens)) for segment in alive)
        blocks.append((tokens, token * tokens + pair * pairs))
    largest = max(kept for _, kept in blocks)
    if training.checkpointing:
        return c * width * sum(tokens for tokens, _ in blocks) + 2 * largest
    return sum(kept for _, kept in blocks) + largest


def _a_token(config: Mapping[str, Any], training: Training) -> int:
    """Bytes that a block keeps for one token."""
    width, heads, c = config["hidden_size"], config["num_attention_heads"], training.compute
    head = config.get("head_dim") or width // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    mlp = (4 if training.adapters else 2) * config.get("intermediate_size", 4 * width)
    family = config.get("model_type")
    norms = (32 + 2 * c if family == "gemma2" else 2 * (4 + 2 * c)) * width
    norms += (4 + c) * (queries + keys) if family == "qwen3" else 0
    return norms + c * (2 * queries + 2 * keys + mlp)


def _head(config: Mapping[str, Any], label_rows: int, training: Training) -> int:
    width, vocabulary, c = config["hidden_size"], config["vocab_size"], training.compute
    chunk = min(GPU_CHUNK_BYTES if training.cuda else CPU_CHUNK_BYTES, 4 * vocabulary * label_rows)
    bent = 2 if config.get("final_logit_softcapping") else 1
    logits = chunk * bent + (chunk * c // 4 if c != 4 else 0)
    gradient = 0 if training.trainable is not None else (4 + (c if c != 4 else 0)) * vocabulary * width
    return (4 + 4 * c) * width * label_rows + logits + gradient
