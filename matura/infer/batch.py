"""Rows that are decoded together: what they hold in common and how rows leave, fork and are reordered.

Shape suffixes: B rows, T prompt tokens, S positions so far, M source tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.model.cache import Cache
from matura.model.peft.adapter import Adapter
from matura.model.peft.routing import Routing, route
from matura.model.transformer import Transformer

UNBOUNDED = 4096
"""Positions that are reserved at once for a model without a limit; the cache grows when they are used up."""


@dataclass
class Batch:
    """The rows' adapters with the model that serves them, the cache, which keys are real (None: all), and the rows'
    encoder's memory (None: no encoder)."""

    routing: Routing
    cache: Cache
    real_BS: Tensor | None
    memory_BMD: Tensor | None
    memory_real_BM: Tensor | None

    def step(self, ids: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Feed one token to every row; logits [B, V] of what comes next."""
        model = self.routing.model
        device = model.embed.weight.device
        ids_B1 = torch.tensor([[id] for id in ids], device=device)
        positions_B1 = torch.tensor([[position] for position in positions], device=device)
        if self.real_BS is not None:
            self.real_BS = torch.cat([self.real_BS, self.real_BS.new_ones(len(ids), 1)], dim=1)
        hidden_B1D = model.decode(
            ids_B1,
            mask=self.real_BS,
            positions_BT=positions_B1,
            memory_BSD=self.memory_BMD,
            memory_mask_BS=self.memory_real_BM,
            cache=self.cache,
        )
        return model.logits(hidden_B1D[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows from now on, in this order; a row named twice is forked. Positions do not move, so columns
        that are padding for all that are left stay."""
        index = torch.tensor(rows, device=self.cache.layers[0].k_BGSK.device)
        self.cache.keep(index)
        self.routing = self.routing.keep(rows)
        self.real_BS = None if self.real_BS is None else self.real_BS[index]
        self.memory_BMD = None if self.memory_BMD is None else self.memory_BMD[index]
        self.memory_real_BM = None if self.memory_real_BM is None else self.memory_real_BM[index]


def read(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]],
    new: int,
    adapters: Sequence[Adapter | None] = (),
) -> tuple[Batch, Tensor]:
    """The prompts, read, with the logits [B, V] of their first new tokens. `new`: how many will follow at most.

    `adapters` has one for each prompt (None: the model alone); none given: nobody has one. Shorter prompts are padded
    on the left, shorter sources on the right; padding is masked. `sources` are empty for a model without an encoder.
    """
    routing = route(model, adapters or [None] * len(prompts))
    model = routing.model
    device = model.embed.weight.device
    ids_BT, real_BT = padded(prompts, device, left=True)
    memory_BMD = memory_real_BM = None
    if model.encoder is not None:
        sources_BM, memory_real_BM = padded(sources, device, left=False)
        memory_BMD = model.encode(sources_BM, mask=memory_real_BM)
    assert model.decoder is not None
    longest = model.config.longest(model.decoder.config)
    room = min(
        ids_BT.shape[1] + new, longest if longest <= model.config.context else ids_BT.shape[1] + UNBOUNDED
    )
    cache = model.new_cache(len(prompts), room + routing.columns)
    batch = Batch(routing, cache, real_BT, memory_BMD, memory_real_BM)
    hidden_BTD = model.decode(
        ids_BT, mask=real_BT, memory_BSD=memory_BMD, memory_mask_BS=memory_real_BM, cache=cache
    )
    return batch, model.logits(hidden_BTD[:, -1])


def opening(model: Transformer, ids: Sequence[int], source: Sequence[int], where: str = "") -> Sequence[int]:
    """The decoder's first tokens: `ids`, or with an encoder and none given the model's start token.

    Raises MaturaError, naming `where` (nothing: the only request), for what this model cannot answer.
    """
    try:
        return _opening(model, ids, source)
    except MaturaError as error:
        raise MaturaError(named(where, str(error))) from None


def named(where: str, message: str) -> str:
    """A message that says of which request it is, where there are several."""
    return f"{where}: {message}" if where else message


def known(model: Transformer, given: Iterable[tuple[str, int]]) -> None:
    """Raises MaturaError for the first of (name of what holds it, token id) that the vocabulary does not have."""
    vocabulary = model.config.vocabulary
    for name, id in given:
        if not 0 <= id < vocabulary:
            raise MaturaError(f"{name} names token {id}; the model's tokens are 0 to {vocabulary - 1}")


def _opening(model: Transformer, ids: Sequence[int], source: Sequence[int]) -> Sequence[int]:
    if model.decoder is None:
        raise MaturaError("this model has no decoder and cannot write; use it to embed, fill or classify")
    if model.encoder is None and len(source):
        raise MaturaError("this model has no encoder; put the source into the prompt")
    if model.encoder is not None:
        if not len(source):
            raise MaturaError("this model answers a source text; give at least one token of it")
        if len(source) > (longest := model.config.longest(model.encoder.config)):
            raise MaturaError(
                f"the source has {len(source)} tokens and the model's context is {longest}; shorten it"
            )
        if not len(ids):
            if model.config.start_id is None:
                raise MaturaError("this model has no start token; give the answer's first token as prompt")
            ids = [model.config.start_id]
    if not len(ids):
        raise MaturaError("the prompt is empty; give at least one token")
    known(model, [*(("the source", id) for id in source), *(("the prompt", id) for id in ids)])
    if len(ids) >= (longest := model.config.longest(model.decoder.config)):
        raise MaturaError(
            f"the prompt has {len(ids)} tokens and the model's context is {longest}; shorten it"
        )
    return ids


def padded(
    rows: Sequence[Sequence[int]], device: torch.device, *, left: bool
) -> tuple[Tensor, Tensor | None]:
    """Ids as [B, T], and which are real; None when no row is padded. Padding is id 0, and always masked."""
    longest = max(map(len, rows))
    fill = [[0] * (longest - len(ids)) for ids in rows]
    both = [[*pad, *ids] if left else [*ids, *pad] for ids, pad in zip(rows, fill, strict=True)]
    lengths_B1 = torch.tensor([[len(ids)] for ids in rows], device=device)
    at_T = torch.arange(longest, device=device)[None]
    real_BT = at_T >= longest - lengths_B1 if left else at_T < lengths_B1
    return torch.tensor(both, device=device), None if bool(real_BT.all()) else real_BT
