"""Floating-point operations that the reads of one forward and backward pass really need.

A product of [m, k] by [k, n] is 2mkn operations. Counted are matrix products only (norms, rotary embeddings, softmax,
gates and the optimizer are not), and nothing that is computed a second time (flash attention's scores, chunked logits,
activation checkpointing): a bound for any engine, and the numerator of a model FLOP utilisation (PaLM, arXiv
2204.02311, appendix B), which is 6 operations per weight and token plus the attention.

Legend: n tokens, V vocabulary, D width, H query heads of width d, k a block (1-based).

* A linear layer [out, in] over n tokens: 2 n in out forward, as much for the gradient of its input, as much for the
  gradient of its weight. The input's is needed where anything before it trains, the weight's where the weight trains.
  A low-rank adapter adds two linears, [r, in] and [out, r]. Grouped key heads are in the size of their linears.
* Attention over p pairs (query, visible key): 2 H d p each for scores and sums; backward as much for each of the
  gradients of weights, values, queries and keys, as far as their linears get any. p = sum over a segment's own
  positions t of min(t + 1, window): what it shares with its parent is computed once and seen by all of its branches.
* The head over m label rows: 2 m V D for the logits, as much for the gradient of the states, as much for the gradient
  of its weight, which rows that see the head as a constant do not need (2 of 3).
* A token is read forward by blocks 1 .. depth of its segment, and backward by blocks 1 .. the last layer from which a
  gradient comes back to it or to what branches off it; by no block below the lowest trainable parameter.

Blocks count whole: a token that is alive passes all of a block, though after the last read of a context token only its
keys and values matter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from dft_search.models import structure
from dft_search.models.segments import Plan, Segment


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations of the forward and of the backward pass."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.forward + other.forward, self.backward + other.backward)

    @property
    def total(self) -> int:
        """Both passes."""
        return self.forward + self.backward


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of a pass by part; passes add up.

    Attributes:
        linears: of the blocks, adapters included.
        attention: scores and sums of the blocks.
        head: the vocabulary projection at label rows.
        token_layers: sum over blocks of the tokens that they read forward.
    """

    linears: Cost = Cost()
    attention: Cost = Cost()
    head: Cost = Cost()
    token_layers: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            self.linears + other.linears,
            self.attention + other.attention,
            self.head + other.head,
            self.token_layers + other.token_layers,
        )

    @property
    def blocks(self) -> Cost:
        """All but the head."""
        return self.linears + self.attention

    @property
    def total(self) -> int:
        """Everything, forward and backward."""
        return (self.blocks + self.head).total


@dataclass(frozen=True, slots=True)
class HeadRead:
    """``rows`` label states of layer ``layer`` through the head.

    Attributes:
        layer: 1..L.
        rows: m.
        attached: the head's weight, and the norm's where ``norm``, get a gradient of them.
        norm: the final norm goes over them.
    """

    layer: int
    rows: int
    attached: bool = True
    norm: bool = True


def pass_flops(
    model: nn.Module, plan: Plan, heads: Sequence[HeadRead], gradient_depths: Sequence[int] | None = None
) -> Flops:
    """What ``plan`` costs on ``model``, forward and backward; see the head of this file for the formulas.

    Args:
        model: a supported causal language model with what trains marked by ``requires_grad``; any device, also meta.
        plan: all tokens of the pass.
        heads: all label rows.
        gradient_depths: for each segment the last layer of its own reads that send a gradient back, 0 for none;
            None: its depth. What comes down from branches is found from these.
    """
    config: Any = structure.causal_lm(model).config
    ahead = [segment.depth for segment in plan.segments]
    back = _with_branches(plan, ahead if gradient_depths is None else gradient_depths)
    windows = [_window(config, number) for number in range(1, config.num_hidden_layers + 1)]
    sizes = [len(segment.tokens) for segment in plan.segments]
    pairs = {window: [_pairs(segment, window) for segment in plan.segments] for window in set(windows)}
    flows = _trains(structure.body(model).embed_tokens)
    linears, attention, head = Cost(), Cost(), Cost()
    weight = structure.head(model).weight
    per_row = 2 * weight.shape[0] * weight.shape[1]
    for number, (block, window) in enumerate(zip(structure.blocks(model), windows, strict=True), 1):
        shape = _block(block, flows)
        flows = shape.flows
        linears += Cost(shape.forward * _alive(sizes, ahead, number), shape.backward * _alive(sizes, back, number))
        pair = 2 * config.num_attention_heads * block.self_attn.head_dim
        seen, returned = _alive(pairs[window], ahead, number), _alive(pairs[window], back, number)
        attention += Cost(2 * pair * seen, shape.attention * pair * returned)
        for read in heads:
            if read.layer != number:
                continue
            to_states = flows or (read.norm and read.attached and _trains(structure.final_norm(model)))
            to_weight = read.attached and weight.requires_grad
            head += Cost(per_row * read.rows, (to_states + to_weight) * per_row * read.rows)
    return Flops(linears, attention, head, plan.token_layers)


@dataclass(frozen=True, slots=True)
class _Block:
    """One block: operations of its linears for each token, backward products for each pair, and whether a gradient
    is wanted of its output (something in or below it trains)."""

    forward: int
    backward: int
    attention: int
    flows: bool


def _block(block: Any, flows: bool) -> _Block:
    """Go through a block as its tokens do.

    Args:
        block: with ``self_attn`` and a gated ``mlp``, named alike in every supported family.
        flows: whether a gradient is wanted of its input.
    """
    attend, mlp = block.self_attn, block.mlp
    inside = flows or _trains(block.input_layernorm)
    query, key, value = (_linear(getattr(attend, f"{name}_proj"), inside) for name in "qkv")
    of_query = query.flows or _trains(getattr(attend, "q_norm", None))
    of_key = key.flows or _trains(getattr(attend, "k_norm", None))
    # the gradients of values, of weights (on the way to either side of the scores), of queries, of keys
    products = int(value.flows) + int(of_query or of_key) + int(of_query) + int(of_key)
    out = _linear(attend.o_proj, of_query or of_key or value.flows)
    before = (getattr(block, name, None) for name in ("post_attention_layernorm", "pre_feedforward_layernorm"))
    inside = flows or out.flows or any(_trains(norm) for norm in before)
    gate, up = _linear(mlp.gate_proj, inside), _linear(mlp.up_proj, inside)
    down = _linear(mlp.down_proj, gate.flows or up.flows)
    linears = (query, key, value, out, gate, up, down)
    return _Block(
        sum(linear.forward for linear in linears),
        sum(linear.backward for linear in linears),
        products,
        inside or down.flows or _trains(getattr(block, "post_feedforward_layernorm", None)),
    )


@dataclass(frozen=True, slots=True)
class _Linear:
    forward: int
    backward: int
    flows: bool


def _linear(module: Any, flows: bool) -> _Linear:
    """A linear layer, maybe with low-rank adapters: operations for each token."""
    base = getattr(module, "base_layer", module)
    size = 2 * base.in_features * base.out_features
    forward, backward = size, size * (flows + base.weight.requires_grad)
    for down, up in _adapters(module):
        small, large = (2 * part.in_features * part.out_features for part in (down, up))
        between = flows or _trains(down)
        forward += small + large
        backward += small * (flows + down.weight.requires_grad) + large * (between + up.weight.requires_grad)
    return _Linear(forward, backward, flows or _trains(module))


def _adapters(module: Any) -> Iterator[tuple[Any, Any]]:
    down, up = getattr(module, "lora_A", {}), getattr(module, "lora_B", {})
    return ((down[name], up[name]) for name in down)


def _trains(module: nn.Module | None) -> bool:
    return module is not None and any(parameter.requires_grad for parameter in module.parameters())


def _with_branches(plan: Plan, depths: Sequence[int]) -> list[int]:
    """A gradient that reaches a branch goes on to the parent's keys and values, up to the same layer."""
    found = list(depths)
    for number in reversed(range(len(found))):  # parents stand before their branches
        parent = plan.segments[number].parent
        if parent >= 0:
            found[parent] = max(found[parent], found[number])
    return found


def _alive(values: Sequence[int], depths: Sequence[int], layer: int) -> int:
    """Sum over the segments that ``layer`` reads."""
    return sum(value for value, depth in zip(values, depths, strict=True) if depth >= layer)


def _pairs(segment: Segment, window: int | None) -> int:
    """Sum of min(t + 1, window) over the own positions t of a segment."""
    first, last = segment.start + 1, segment.start + len(segment.tokens)
    bound = last if window is None else window
    growing = min(last, bound)  # up to here every position sees one more than the one before
    found = (first + growing) * (growing - first + 1) // 2 if growing >= first else 0
    return found + bound * (last - max(growing, first - 1))


def _window(config: Any, layer: int) -> int | None:
    """What a query of ``layer`` sees at most. Mistral names no kinds of layers: its window holds for all of them."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer - 1] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)
