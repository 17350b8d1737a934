"""What every side of `learning` is measured by: the same parts of the text, the same clock, the same exact validation.

Nothing here imports Matura, so that the peers run without it.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

TRAINED = 0.9
"""Share of the characters that is trained on; the rest validates (nanoGPT's split)."""
LOOKS = (0.125, 0.25, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Shares of the budget at which the curve has a point."""
LOOK_TOKENS = 20_000
"""Tokens of the validation part that a point of the curve reads."""


def parts(path: str, limit: int | None = None) -> tuple[str, str]:
    """(training text, validation text) of a file; `limit` keeps that many characters of the second."""
    text = Path(path).read_text(encoding="utf-8")
    cut = int(len(text) * TRAINED)
    return text[:cut], text[cut:][:limit]


def byte_level_bpe(text: str, vocabulary: int) -> Tokenizer:
    """A byte-level BPE of the training text, as GPT-2 has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of the whole text, a million characters at a time."""
    pieces = [text[start : start + 1_000_000] for start in range(0, len(text), 1_000_000)]
    return [id for piece in pieces for id in tokenizer.encode(piece).ids]


@dataclass
class Budget:
    """Wall-clock seconds of training. What happens between `pause` and `go` costs nothing."""

    seconds: float
    spent: float = 0.0
    cpu: float = 0.0
    _since: tuple[float, float] | None = None

    def go(self) -> None:
        """Start the clock, or start it again."""
        self._since = time.perf_counter(), time.process_time()

    def pause(self) -> None:
        """Stop the clock."""
        self.spent, self.cpu, self._since = self._read()[0], self._read()[1], None

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        return self._read()[0] / self.seconds

    def _read(self) -> tuple[float, float]:
        if self._since is None:
            return self.spent, self.cpu
        wall, cpu = self._since
        return self.spent + time.perf_counter() - wall, self.cpu + time.process_time() - cpu


@torch.no_grad()
def total_nats(
    logits: Callable[[Tensor], Tensor], ids: Sequence[int], before: Sequence[int], context: int
) -> float:
    """-log p of all `ids`, each counted once, after the tokens `before` (the end of the training text).

    Windows of `context` tokens move on by half their length, so a token sees at least context / 2 tokens before it
    (as far as there are any): no side pays for a cold start in the middle of the text.
    """
    row = torch.tensor([*before[-context:], *ids])
    first, stride, total = len(row) - len(ids), max(1, context // 2), 0.0
    windows: dict[tuple[int, int], list[int]] = {}
    for start in range(first, len(row), stride):
        end = min(start + stride, len(row))
        windows.setdefault((min(context, end - 1), end - start), []).append(end)
    for (length, counted), ends in windows.items():
        for some in (ends[n : n + 8] for n in range(0, len(ends), 8)):
            x_BT = torch.stack([row[end - 1 - length : end - 1] for end in some])
            y_BN = torch.stack([row[end - counted : end] for end in some])
            scores_NV = logits(x_BT)[:, -counted:].flatten(0, 1).float()
            total += F.cross_entropy(scores_NV, y_BN.flatten(), reduction="sum").item()
    return total


@dataclass
class Watch:
    """The curve of a run, its best weights, and its end. `model` in evaluation mode answers through `logits`."""

    model: nn.Module
    logits: Callable[[Tensor], Tensor]
    ids: Sequence[int]
    before: Sequence[int]
    context: int
    bytes_of: Callable[[int], int]
    """UTF-8 bytes of the first n validation tokens."""
    budget: Budget
    curve: list[tuple[float, float]] = field(default_factory=list)
    best: tuple[float, dict[str, Tensor]] | None = None

    def look(self) -> bool:
        """Call after every update: a point of the curve when one is due; True when the budget is spent."""
        if len(self.curve) == len(LOOKS) or self.budget.progress < LOOKS[len(self.curve)]:
            return False
        self.budget.pause()
        score = self._bits_per_byte(LOOK_TOKENS)
        if self.best is None or score < self.best[0]:
            self.best = score, copy.deepcopy(self.model.state_dict())
        self.curve += [(self.budget.spent, score)]
        while len(self.curve) < len(LOOKS) and self.budget.progress >= LOOKS[len(self.curve)]:
            self.curve += [(self.budget.spent, score)]  # one update was longer than the way to the next point
        self.budget.go()
        return len(self.curve) == len(LOOKS)

    def result(self, **about: Any) -> str:
        """One line of JSON: bits per byte of the whole validation part by the best weights of the curve."""
        self.budget.pause()
        assert self.best is not None
        self.model.load_state_dict(self.best[1])
        found = {
            **about,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": self.budget.spent,
            "cpu_seconds": self.budget.cpu,
            "val_bits_per_byte": self._bits_per_byte(len(self.ids)),
            "val_bytes": self.bytes_of(len(self.ids)),
            "context": self.context,
            "curve": self.curve,
        }
        return json.dumps(found)

    def _bits_per_byte(self, tokens: int) -> float:
        self.model.eval()
        ids = self.ids[:tokens]
        nats = total_nats(self.logits, ids, self.before, self.context)
        self.model.train()
        return nats / math.log(2) / self.bytes_of(len(ids))
