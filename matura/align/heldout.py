"""A look between updates: what the model writes for held-out prompts, what it is rewarded with, how far it has gone.

A reward of weight 0 is measured here too and never learned from: it says whether a gain means anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from matura.align import rollouts
from matura.align.practice import told
from matura.align.rewards import Weighted
from matura.align.sequences import Reference, pack_answers, token_logprobs
from matura.core.preferences import Ranking
from matura.core.rollout_settings import Rollouts
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format

ROUND = -1
"""The iteration whose draws are taken: none of training's."""


@dataclass(frozen=True)
class Heldout:
    """Answers to the same prompts with the same draws at every look, so that what changes is the model.

    `reference` gives log-probabilities [N] of the model that training began with, at the temperature of `settings`.
    """

    format: Format
    prompts: Sequence[Ranking]
    rewards: Weighted
    settings: Rollouts
    seed: int
    reference: Reference

    @torch.no_grad()
    def __call__(self, model: Transformer) -> dict[str, float]:
        """`heldout_reward`, `heldout_reward.NAME` of each, `heldout_answer_kl` (nats an answer),
        `heldout_answer_tokens`, `heldout_ended`; and `heldout_loss`, minus the reward: what a limit of forgetting keeps
        the best of."""
        written = rollouts.roll(
            model,
            self.format,
            self.prompts,
            k=1,
            draw=self.settings.draw,
            seed=self.seed,
            iteration=ROUND,
            batch=self.settings.batch,
        )
        scores = self.rewards([rollouts.completion(one) for one in written])
        found = {f"heldout_{name}": value for name, value in told(written, scores).items()}
        judged = [one for one in scores.total if one is not None]
        if judged:
            found["heldout_reward_std"] = statistics.pstdev(judged)
            found["heldout_loss"] = -found["heldout_reward"]
        drift = 0.0
        for row in rollouts.rows(written, rollouts.ROW):
            batch = pack_answers([rollouts.grouped(group) for group in row], model.embed.weight.device)
            own_N = token_logprobs(model, batch, self.settings.temperature).logprobs_N
            drift += float((own_N - self.reference(batch)).double().sum())
        return found | {"heldout_answer_kl": drift / len(written)}
