"""What a pre-training run will take, before it starts: on this machine, on accelerators, and beside the point where
its operations would be spent best. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matura.core import costs
from matura.core.artifact import Artifact
from matura.core.files import size_text
from matura.core.hardware import DEVICES, Device, matrix_speed, prices
from matura.core.plan import Estimate, duration
from matura.core.pretrain_settings import Shape, Sizes, amount
from matura.core.settings import recomputed_every
from matura.model.config import ModelConfig
from matura.model.flops import optimal, size, training_flops, training_memory
from matura.model.shape import model_config

UTILISATION = 0.6
"""Share of this processor's matrix speed that training usually reaches; small models reach less."""
VOCABULARY = 16_384
"""Taken when the tokens are not made yet, and their tokenizer does not say either."""


def plan(config: Any, tokens: costs.Given) -> Estimate:
    """The estimate for a `pretrain` config and its token shards, or the estimate of the stage that will make them."""
    vocabulary = costs.vocabulary(tokens) or VOCABULARY
    shape, sizes = config.shape, config.sizes
    model = model_config(shape, vocabulary, sizes.sequence, 0 if shape.kind == "encoder-decoder" else None)
    wanted = budget(sizes, model)
    if not wanted:
        weights = 4 * size(model).all
        return Estimate(
            memory_bytes=(300 << 20) + 2 * weights,
            disk_bytes=weights,
            note="first weights alone",
            model_bytes=weights,
        )
    flops = token_flops(config, model) * wanted
    rows = update_rows(sizes) // passes(update_rows(sizes), sizes.rows)
    again = recomputed_every(config.activation_checkpointing)
    on_gpu = config.device != "cpu"
    half = config.precision in ("bf16", "fp16") or (config.precision == "auto" and on_gpu)
    memory = training_memory(model, rows, sizes.sequence, half=half, recomputed=again)
    averages = memory["weights"] if config.optimizer.average else 0
    here = matrix_speed()
    lines = [
        *_model_lines(shape, model, memory),
        _token_line(wanted, size(model).blocks, tokens),
        _operation_line(flops, size(model).blocks, wanted),
        f"{'this processor, without the GPU' if on_gpu else 'here'}: {here / 1e9:.0f} GFLOP/s of matrix products, "
        f"{duration(flops / (here * UTILISATION))} at {UTILISATION:.0%} of them",
        *_device_lines(model, flops, rows, sizes.sequence, again),
    ]
    return Estimate(
        seconds=flops / (here * UTILISATION),
        memory_bytes=(300 << 20) + sum(memory.values()) + averages,
        disk_bytes=2
        * (memory["weights"] + memory["optimizer"] + averages),  # the last checkpoint and the next
        note=f"{shown(size(model).all)} parameters, {shown(wanted)} tokens",
        details=tuple(lines),
        model_bytes=4 * size(model).all,
    )


def budget(sizes: Sizes, model: ModelConfig) -> float:
    """Training tokens in all."""
    return amount(sizes.tokens) if sizes.tokens else sizes.per_parameter * size(model).blocks


def update_rows(sizes: Sizes) -> int:
    """Rows of one update, over all ranks."""
    return max(1, round(sizes.step / sizes.sequence))


def passes(rows: int, most: int) -> int:
    """The fewest equal forward passes of at most `most` rows that `rows` rows are cut into."""
    return next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= most)


def shown(number: float) -> str:
    """12,300,000 -> 12.3M."""
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.0f}"


def _model_lines(shape: Shape, model: ModelConfig, memory: Mapping[str, int]) -> list[str]:
    counted, stack = size(model), model.last_stack
    heads = f"{stack.attention.heads} heads of {stack.attention.head_width}"
    parts = ", ".join(f"{name} {size_text(value)}" for name, value in memory.items())
    return [
        f"model: {shape.kind}, {stack.layers} layers of width {stack.width}, {heads}: {shown(counted.all)} parameters, "
        f"{shown(counted.blocks)} of them in blocks",
        f"memory: {parts}",
    ]


def _token_line(wanted: float, blocks: int, tokens: costs.Given) -> str:
    line = f"tokens: {shown(wanted)}, {wanted / blocks:.3g} for each parameter of the blocks"
    if isinstance(tokens, Artifact):
        return f"{line}, {wanted / tokens.summary['train']['tokens']:.2g} times through the corpus"
    told = costs.vocabulary(tokens)
    known = f"{told:,}, as its tokenizer is asked for" if told else f"{VOCABULARY:,} is assumed"
    return f"{line} (a vocabulary of {known}: the tokens are not made yet)"


def token_flops(config: Any, model: ModelConfig) -> float:
    """Operations for each token of a `pretrain` config. An encoder's output layer sees the masked tokens alone."""
    scored = config.masking.share if config.shape.kind == "encoder" else 1.0
    return training_flops(model, config.sizes.sequence, scored)


def _operation_line(flops: float, blocks: int, wanted: float) -> str:
    """What the run computes, and where its tokens and the parameters of its blocks stand: as everywhere here,
    embeddings do not count, so neither do the operations of the output layer."""
    parameters, best = optimal(6.0 * blocks * wanted)
    where = "near" if 0.5 < blocks / parameters < 2 else "away from"
    return (
        f"operations: {flops:.3g} FLOP; {where} the optimal point, {shown(parameters)} parameters in blocks and "
        f"{shown(best)} tokens for the same work in them (arXiv:2203.15556)"
    )


def _device_lines(model: ModelConfig, flops: float, asked: int, sequence: int, recomputed: int) -> list[str]:
    """A line for each accelerator. `asked` are the rows of a pass."""
    cost = prices()
    one, two = (training_memory(model, rows, sequence, half=True, recomputed=recomputed) for rows in (1, 2))
    row = two["activations"] - one["activations"]
    need = sum(one.values())
    return [
        _device_line(device, cost[device.name], flops, _fits(device, need, row, asked)) for device in DEVICES
    ]


def _fits(device: Device, need: int, row: int, asked: int) -> str:
    """What a device holds, a tenth of it left free: `need` bytes with one row, `row` bytes for each more."""
    room = int(0.9 * device.memory)
    if need > room:
        return f"{-(-need // room):,} hold it together (parallel.kind=fsdp)"
    rows = 1 + (room - need) // row
    return "one holds it" if rows >= asked else f"one holds it with sizes.rows={rows}, not {asked}"


def _device_line(device: Device, price: float, flops: float, fits: str) -> str:
    seconds = flops / (device.flops * device.utilisation)
    dollars = seconds / 3600 * price
    money = f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:.2g}"
    return (
        f"{device.name}: {duration(seconds)} on one at {device.utilisation:.0%} of its peak, {money}; {fits}"
    )
