"""What a pre-training run is made of, from its settings: the portions of an update, the batches, the looks.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from matura.core import pretrain_settings as settings
from matura.core.errors import ConfigError, MaturaError
from matura.core.records import Conversation
from matura.data.shards import TokenShards
from matura.model.config import ModelConfig
from matura.tokenizer.conversation import Format
from matura.train import corrupt, pairs, watch
from matura.train.blocks import Documents, TokenBatches, held_out
from matura.train.mixture import Mixture, Part
from matura.train.plan import budget, passes, update_rows
from matura.train.ranks import Ranks

DEFAULT_OBJECTIVE: Mapping[str, settings.ObjectiveName] = {
    "decoder": "next_token",
    "encoder": "masked",
    "encoder-decoder": "denoise",
}
LOOK_SEED = 7
"""Held-out text is corrupted in one way, whatever the seed of the run, so that looks can be compared."""


@dataclass(frozen=True)
class Portions:
    """An update: `accumulate` forward passes of `rows` rows on every rank, `tokens` in all; and how many updates. One
    process would make it in `alone` passes: the passes of all ranks are equal parts of these."""

    rows: int
    accumulate: int
    tokens: int
    steps: int
    alone: int


def portions(sizes: settings.Sizes, model: ModelConfig, data_ranks: int = 1) -> Portions:
    """Deal the rows of an update over ranks and passes. Raises ConfigError when they do not divide."""
    rows = update_rows(sizes)
    if rows % data_ranks:
        raise ConfigError(
            f"sizes: an update has {rows} rows ({sizes.step} tokens of {sizes.sequence}), which {data_ranks} ranks "
            f"cannot share evenly: set sizes.step to a multiple of {data_ranks * sizes.sequence}"
        )
    own, alone = rows // data_ranks, passes(rows, sizes.rows)
    whole = math.lcm(alone, data_ranks) // data_ranks  # passes of a rank that are parts of those
    accumulate = whole * passes(own // whole, sizes.rows)
    tokens = rows * sizes.sequence
    wanted = budget(sizes, model)
    steps = max(1, round(wanted / tokens)) if wanted else 0
    return Portions(own // accumulate, accumulate, tokens, steps, alone)


@dataclass(frozen=True)
class Material:
    """What there is to learn from: token shards, what their ids mean, and pairs for `translate`."""

    shards: TokenShards
    format: Format
    pairs: tuple[Conversation, ...] = ()
    heldout_pairs: tuple[Conversation, ...] = ()


@dataclass(frozen=True)
class Task:
    """What is learned: shares of objectives by name, and how text is corrupted for them."""

    shares: Mapping[settings.ObjectiveName, float]
    masking: settings.Masking
    spans: settings.Spans
    documents: Documents
    sources: Mapping[str, float]


def start_id(format: Format) -> int:
    """The token that opens what a decoder with encoder writes: padding where there is one (T5), else the end token.

    Raises MaturaError without either."""
    found = next((id for id in (format.tokenizer.pad_id, format.tokenizer.eos_id) if id is not None), None)
    if found is None:
        raise MaturaError(
            "an encoder-decoder needs a padding or an end token, and this tokenizer has neither"
        )
    return found


def batches(
    material: Material, task: Task, portions: Portions, length: int, seed: int, ranks: Ranks, device: str
) -> Mixture:
    """The batches of this rank: those of every objective in turn. Raises MaturaError for text too short for one, and
    for a tokenizer without what an objective needs."""
    made: dict[str, Part] = {
        name: _part(name, share, material, task, portions, length, seed, ranks, device)
        for name, share in task.shares.items()
    }
    return Mixture(made)


def _part(
    name: settings.ObjectiveName,
    share: float,
    material: Material,
    task: Task,
    portions: Portions,
    length: int,
    seed: int,
    ranks: Ranks,
    device: str,
) -> Part:
    place: dict[str, Any] = {"rank": ranks.data_rank, "world": ranks.data, "device": device, "seed": seed}
    if name == "translate":
        start, alone = start_id(material.format), portions.alone
        found = pairs.PairBatches(
            _read(material, length),
            tokens=portions.tokens // alone,
            shares=portions.accumulate * ranks.data // alone,
            start=start,
            padding=start,
            **place,
        )
        return Part(found, share, found.mean_tokens * alone)
    rows = TokenBatches(
        material.shards,
        rows=portions.rows,
        length=length,
        weights=task.sources or None,
        documents="joined" if name == "denoise" else task.documents,
        **place,
    )
    if name == "next_token":
        return Part(rows, share, portions.tokens)
    corrupted = corrupt.Corrupted(rows, corruption(name, material.format, task, seed))
    return Part(corrupted, share, portions.tokens)


def corruption(
    name: settings.ObjectiveName, format: Format, task: Task, seed: int
) -> corrupt.Masking | corrupt.Spans:
    """How text is corrupted for `masked` and `denoise`."""
    if name == "denoise":
        spans = task.spans
        return corrupt.spans(format.tokenizer, start_id(format), seed, density=spans.share, mean=spans.mean)
    masking = task.masking
    made = corrupt.masking(
        format.tokenizer,
        format.tokenizer.vocab_size,
        seed,
        share=masking.share,
        whole_words=masking.words == "whole",
    )
    return dataclasses.replace(made, masked=masking.masked, random=masking.random)


def _read(material: Material, length: int, heldout: bool = False) -> tuple[pairs.Pair, ...]:
    rows = material.heldout_pairs if heldout else material.pairs
    return pairs.from_conversations(rows, material.format.tokenizer, source=length, target=length).pairs


Look = Callable[[watch.Compute, int | None], dict[str, float]]
"""(how to compute, held-out tokens to read or None for all of them) -> figures by name."""


def looks(
    material: Material, task: Task, length: int, rows: int, ranks: Ranks, device: str
) -> dict[str, Look]:
    """How to look at held-out text, by objective: bits per byte; loss and accuracy of masked tokens; losses. The ranks
    share it.

    Objectives without held-out text are left out, and those that need a row of it where there is less.
    """
    shards = material.shards
    made: dict[str, Look] = {}
    for name in task.shares:
        if name == "translate":
            if material.heldout_pairs:
                read = _read(material, length, heldout=True)
                made[name] = _look_at_pairs(read, material, rows, length, ranks, device)
        elif name == "next_token":
            made[name] = lambda compute, tokens: {
                "heldout_bpb": watch.bits_per_byte(
                    compute, held_out(shards, length=length, rows=rows, limit=tokens, device=device), ranks
                )
            }
        elif shards.totals("heldout")["tokens"] > length:
            changed = corruption(name, material.format, task, LOOK_SEED)
            made[name] = _look_at_corrupted(name, changed, shards, length, ranks, device)
    return made


def _look_at_corrupted(
    name: str,
    changed: corrupt.Masking | corrupt.Spans,
    shards: TokenShards,
    length: int,
    ranks: Ranks,
    device: str,
) -> Look:
    def batches(tokens: int | None) -> Iterator[Any]:
        rows = TokenBatches(shards, rows=1, length=length, seed=LOOK_SEED, split="heldout", device=device)
        whole = rows.sources[0].count
        count = whole if tokens is None else min(whole, max(1, tokens // length))
        return itertools.islice(corrupt.Corrupted(rows, changed), count)

    def look(compute: watch.Compute, tokens: int | None) -> dict[str, float]:
        found = {f"heldout_{name}_loss": watch.mean_loss(compute, batches(tokens), ranks)}
        if name == "masked":
            found["heldout_masked_accuracy"] = watch.masked_accuracy(compute, batches(tokens), ranks)
        return found

    return look


def _look_at_pairs(
    read: tuple[pairs.Pair, ...], material: Material, rows: int, length: int, ranks: Ranks, device: str
) -> Look:
    start = start_id(material.format)
    groups = pairs.PairBatches(
        read, tokens=rows * length, start=start, padding=start, seed=LOOK_SEED, device=device
    )

    def look(compute: watch.Compute, tokens: int | None) -> dict[str, float]:
        groups.restore({**groups.state(), "epoch": 0, "next": 0, "dealt": []})
        whole = itertools.takewhile(lambda _: groups.epochs <= 1, groups)
        return {"heldout_translate_loss": watch.mean_loss(compute, _until(tokens, whole), ranks)}

    return look


def _until(tokens: int | None, batches: Iterable[Any]) -> Iterator[Any]:
    """The batches until so many tokens are reached; all of them for None."""
    seen = 0
    for batch in batches:
        yield batch
        seen += batch.tokens
        if tokens is not None and seen >= tokens:
            return


def peak_memory(device: str) -> int:
    """Bytes that this process has held at most."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
