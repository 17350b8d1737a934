"""How much arithmetic and memory training takes, without building the model. No torch.

A token costs 2 multiply-adds forward and 4 backward for each parameter of a matrix product (arXiv:2001.08361,
section 2.1), and attention to T tokens another 2 * layers * inner * T forward (half of it where it is causal), three
times that with the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from matura.model import config as c
from matura.model.counting import count_parameters


@dataclass(frozen=True)
class Size:
    """Parameters of a model: all, those in matrix products, and those of the blocks alone."""

    all: int
    products: int
    blocks: int


def size(config: c.ModelConfig) -> Size:
    """Count the parameters of a model."""
    everything, products = count_parameters(config)
    table = config.vocabulary * config.width
    head = table if isinstance(config.head, c.LanguageHead) else 0
    return Size(everything, products, products - head)


def training_flops(config: c.ModelConfig, sequence: int, scored: float = 1.0) -> float:
    """Floating-point operations for each token of a row of `sequence` tokens, forward and backward.

    For an encoder-decoder: for each token of either side, if both are equally long. `scored` is the share of the tokens
    that reach the output layer: of an encoder that fills masks, those that are masked.
    """
    stacks = [one for one in (config.encoder, config.decoder) if one]
    counted = size(config)
    head = counted.products - counted.blocks
    products = 6 * (counted.blocks + scored * head) / len(stacks)
    return products + sum(_attention(one, sequence) for one in stacks) / len(stacks)


def reading_flops(config: c.ModelConfig, sequence: int) -> float:
    """The same for a token that is only read, or written: a third of training."""
    return training_flops(config, sequence) / 3


def adapting_flops(config: c.ModelConfig, sequence: int) -> float:
    """The same where the weights are frozen and an adapter beside them learns: the backward pass goes through the
    weights, but there are no gradients of them. The adapter's own arithmetic is not counted."""
    return training_flops(config, sequence) * 2 / 3


def _attention(stack: c.StackConfig, sequence: int) -> float:
    """Scores and weighted sums of all layers for one token: 2 products of `inner` x seen tokens, times 3."""
    inner = stack.attention.heads * stack.attention.head_width
    local = set(stack.local.layers) if stack.local else set()
    window = min(sequence, stack.local.window) if stack.local else sequence
    seen = sum(window if i in local else sequence for i in range(stack.layers))
    whole = 12.0 * inner * seen
    return (whole / 2 if stack.causal else whole) + (12.0 * inner * seen if stack.cross else 0.0)


def training_memory(
    config: c.ModelConfig, rows: int, sequence: int, *, half: bool = False, recomputed: int = 0
) -> dict[str, int]:
    """Bytes of weights, gradients, optimizer state and activations of one forward pass of `rows` rows.

    Weights, gradients and two moments are float32. Of activations a block keeps about 16 D + 4 F numbers a token
    (what its backward pass needs), in 2 bytes with `half`, and the output layer one block of logits. With `recomputed`
    one block in so many keeps what enters it alone, until it is run again.
    """
    parameters = size(config).all
    tokens = rows * sequence
    kept = sum(_kept(stack, recomputed) for stack in (config.encoder, config.decoder) if stack)
    bytes_each = 2 if half else 4
    return {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "optimizer": 8 * parameters,
        "activations": tokens * kept * bytes_each + 2 * 512 * config.vocabulary * 4,
    }


def _kept(stack: c.StackConfig, recomputed: int) -> int:
    """Numbers of a token that wait for the backward pass; of the blocks that are run again, one at a time is whole."""
    block = 16 * stack.width + 4 * stack.mlp.hidden
    again = -(-stack.layers // recomputed) if recomputed else 0
    return (stack.layers - again + bool(again)) * block + again * stack.width


def optimal(flops: float) -> tuple[float, float]:
    """(parameters, tokens) that reach the lowest loss for so many operations: C = 6 N D and D = 20 N
    (arXiv:2203.15556, approaches 1 and 2)."""
    parameters = (flops / 120) ** 0.5
    return parameters, 20 * parameters
