"""Answers with all that PPO learns from them: what was drawn, what was foreseen, what came of it.

An episode holds numbers, not tensors, so that a run which is killed between two updates goes on with the same answers.

Shape suffixes: N answer tokens end to end, S answers.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from matura.align.sequences import AnswerBatch, Prompted, pack_answers

Floats = tuple[float, ...]
TRACKS = ("logprobs", "reference", "values", "advantages", "returns")
"""What an episode says of each token of its answer, in float32."""


@dataclass(frozen=True, slots=True)
class Episode:
    """An answer to a prompt. For each of its tokens: log p when it was written and by the reference, the value of the
    state before it, its advantage, and the return that the value is to learn."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: Floats
    reference: Floats
    values: Floats
    advantages: Floats
    returns: Floats

    def state(self) -> dict[str, Any]:
        """As JSON values that keep every bit."""
        return {"prompt_ids": list(self.prompt_ids), "ids": list(self.ids)} | {
            name: _told(getattr(self, name)) for name in TRACKS
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Episode:
        """What `state` was made of."""
        tracks = {name: _heard(state[name]) for name in TRACKS}
        return cls(tuple(state["prompt_ids"]), tuple(state["ids"]), **tracks)


def _told(values: Floats) -> str:
    return base64.b64encode(array("f", values).tobytes()).decode("ascii")


def _heard(text: str) -> Floats:
    values = array("f")
    values.frombytes(base64.b64decode(text))
    return tuple(values)


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes as one row. `is_fresh`: no update was made since they were written, so every ratio must be 1."""

    answers: AnswerBatch
    logprobs_N: Tensor
    reference_N: Tensor
    values_N: Tensor
    advantages_N: Tensor
    returns_N: Tensor
    is_fresh: bool = False

    @property
    def weight(self) -> float:
        """Tokens of the answers: all count alike."""
        return float(len(self.logprobs_N))

    @property
    def tokens(self) -> int:
        """Tokens that run through the model."""
        return self.answers.tokens if len(self.logprobs_N) else 0


def pack_episodes(
    episodes: Sequence[Episode], device: str | torch.device = "cpu", *, is_fresh: bool = False
) -> EpisodeBatch:
    """Lay episodes end to end, without padding. Those that follow one another on the same prompt read it once."""
    together = groupby(episodes, lambda one: one.prompt_ids)
    prompted = [Prompted(prompt, tuple(one.ids for one in group)) for prompt, group in together]
    answers = pack_answers(prompted, device)
    tracks = {
        f"{name}_N": torch.tensor(
            [value for one in episodes for value in getattr(one, name)], dtype=torch.float32, device=device
        )
        for name in TRACKS
    }
    return EpisodeBatch(answers, is_fresh=is_fresh, **tracks)
