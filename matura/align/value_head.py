"""A policy with what foresees its rewards: one module, so that checkpoints and the optimizer hold both.

Shape suffixes: N answer tokens, D width.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from matura.align.sequences import AnswerBatch
from matura.core.peft_settings import LoraConfig, Tuning
from matura.core.ppo_settings import ValueModel
from matura.model.layers import Linear
from matura.model.likelihoods import likelihoods
from matura.model.peft import tuning
from matura.model.transformer import Transformer
from matura.train.batches import hidden_states


class Reading(NamedTuple):
    """Of every answer token: log p at the temperature, the entropy of its distribution in nats (None: not asked for),
    and the value of the state before it."""

    logprobs_N: Tensor
    entropy_N: Tensor | None
    values_N: Tensor


class ValueHead(nn.Module):
    """One number from a hidden state. It starts at zero: nothing is foreseen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = Linear(width, 1, bias=True)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Values [N]."""
        value_N1: Tensor = self.out(hidden_ND)
        return value_N1[:, 0]


class PolicyWithValue(nn.Module):
    """`policy` writes, `value` reads its hidden states, or those of `critic` where there is one.

    It stays in evaluation mode: with dropout the probability of an answer would be another each time, and the ratio
    to the rollout's would not begin at 1.
    """

    def __init__(self, policy: Transformer, critic: Transformer | None = None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic
        like = policy.embed.weight
        self.value = ValueHead(policy.config.width).to(like.device, like.dtype)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Nothing happens: see above."""
        return super().train(False)

    @property
    def foreseeing(self) -> list[nn.Parameter]:
        """What is trained of the value model alone."""
        parts = [self.value, *([] if self.critic is None else [self.critic])]
        return [one for part in parts for one in part.parameters() if one.requires_grad]

    def read(self, batch: AnswerBatch, temperature: float, *, entropy: bool = False) -> Reading:
        """All that the losses need, with gradient, in one pass (two with a critic)."""
        hidden_ND = hidden_states(self.policy, batch)
        found = likelihoods(
            self.policy.features(hidden_ND),
            self.policy.unembedding,
            batch.targets_N,
            temperature=temperature,
            entropy=entropy,
        )
        if self.critic is not None:
            hidden_ND = hidden_states(self.critic, batch)
        return Reading(found.logprobs_N, found.entropy_N, self.value(hidden_ND).float())


def with_value(
    policy: Transformer, parent: Transformer, settings: ValueModel, seed: int = 0
) -> PolicyWithValue:
    """The policy with its value model. A critic shares the frozen weights of `parent`, which has no updates."""
    if settings.kind == "head":
        return PolicyWithValue(policy)
    lora = LoraConfig(rank=settings.rank, alpha=2 * settings.rank)
    critic = tuning.apply(tuning.twin(parent), Tuning(lora=lora), seed + 1)
    return PolicyWithValue(policy, critic)
