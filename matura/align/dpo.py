"""Learning from preferences: the objective of a batch, the numbers of an update, and a look at held-out preferences.

All dropout is off: the reference has none, so with it the first loss would not be that of equal models.

Shape suffixes: N answer tokens, S answers, P pairs, Q thumbs, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from matura.align import losses, reference
from matura.align.preference_batches import Known, PreferenceBatch, divergence, pack
from matura.align.sequences import Sums, sums, token_logprobs
from matura.core.dpo_settings import PreferenceLoss
from matura.model.divergence import kl_divergence
from matura.model.likelihoods import likelihoods
from matura.model.transformer import Transformer
from matura.train.batches import features

Readings = dict[str, tuple[float, float]]
"""Name -> (sum of weight times value, sum of weights)."""


def compare(settings: PreferenceLoss, batch: PreferenceBatch, found: Sums) -> tuple[Tensor, Readings]:
    """The loss of a batch summed over its pairs or thumbs, and what there is to see in it."""
    ratios_S = found.logprobs_S - batch.reference_S
    scores_S = ratios_S if settings.scaled == "sequence" else ratios_S / found.counts_S.clamp(min=1)
    if settings.kind == "kto":
        return _thumbs(settings, batch, scores_S, found)
    chosen_P, rejected_P = scores_S[batch.chosen_P], scores_S[batch.rejected_P]
    loss_P = losses.of_pairs(settings, chosen_P, rejected_P, -found.means_S[batch.chosen_P])
    margins_P = settings.strength * (chosen_P - rejected_P).detach()
    seen_P = {
        "loss": loss_P,
        "reward_chosen": settings.strength * chosen_P,
        "reward_rejected": settings.strength * rejected_P,
        "margin": margins_P,
        "accuracy": 0.5 * (margins_P > 0) + 0.5 * (margins_P >= 0),
        "logprob_chosen": found.means_S[batch.chosen_P],
        "logprob_rejected": found.means_S[batch.rejected_P],
    }
    if settings.reference:
        seen_P["chosen_change"] = (ratios_S / found.counts_S.clamp(min=1))[batch.chosen_P]
    weights_P = batch.weights_P
    return (loss_P * weights_P).sum(), _readings(seen_P, weights_P)


def _thumbs(
    settings: PreferenceLoss, batch: PreferenceBatch, scores_S: Tensor, found: Sums
) -> tuple[Tensor, Readings]:
    scores_Q, liked_Q = scores_S[batch.judged_Q], batch.liked_Q
    loss_Q = losses.kto(
        scores_Q,
        liked_Q,
        batch.z,
        settings.strength,
        desirable=settings.desirable,
        undesirable=settings.undesirable,
    )
    above_Q = (scores_Q.detach() - batch.z) * torch.where(liked_Q, 1.0, -1.0)
    seen_Q = {"loss": loss_Q, "accuracy": 0.5 * (above_Q > 0) + 0.5 * (above_Q >= 0)}
    readings = _readings(seen_Q, batch.weights_Q)
    change_S = (found.logprobs_S - batch.reference_S) / found.counts_S.clamp(min=1)
    for name, of_Q in (("chosen", liked_Q), ("rejected", ~liked_Q)):
        its_Q = {
            f"reward_{name}": settings.strength * scores_Q[of_Q],
            f"logprob_{name}": found.means_S[batch.judged_Q][of_Q],
        }
        if name == "chosen":
            its_Q["chosen_change"] = change_S[batch.judged_Q][of_Q]
        readings |= _readings(its_Q, batch.weights_Q[of_Q])
    readings["z"] = batch.z, 1.0
    return (loss_Q * batch.weights_Q).sum(), readings


def _readings(seen: dict[str, Tensor], weights: Tensor) -> Readings:
    weight = float(weights.sum())
    return {name: (float((values.detach() * weights).sum()), weight) for name, values in seen.items()}


def _means(readings: Sequence[Readings]) -> dict[str, float]:
    """Weighted means over batches, not means of means."""
    names = dict.fromkeys(name for one in readings for name in one)
    parts = {name: [one[name] for one in readings if name in one] for name in names}
    return {
        name: math.fsum(total for total, _ in its) / weight
        for name, its in parts.items()
        if (weight := math.fsum(weight for _, weight in its))
    }


@dataclass
class Objective:
    """The loss of a batch of preferences. `notes` gives the numbers of the update that was made since they were asked
    for last."""

    settings: PreferenceLoss
    _seen: list[Readings] = field(default_factory=list)

    def __call__(self, model: Transformer, batch: PreferenceBatch) -> Tensor:
        """The summed loss, with gradient."""
        model.eval()  # no dropout of any kind
        found = sums(batch.answers, token_logprobs(model, batch.answers).logprobs_N)
        loss, readings = compare(self.settings, batch, found)
        self._seen.append(readings)
        return loss

    def notes(self) -> dict[str, float]:
        """Weighted means over the batches of an update."""
        means = _means(self._seen)
        means.pop("loss", None)  # the loop has it
        self._seen.clear()
        return means


class Heldout:
    """Held-out preferences, read again and again: loss, accuracy, margin, and how far the model is from its parent.

    `heldout_kl` is KL(model || parent) in nats a token, over the whole vocabulary, where the held-out answers stand. Of
    the parent only the features at these positions are kept (4 bytes x width a token), and its output matrix.
    """

    def __init__(self, examples: Sequence[Known], settings: PreferenceLoss, parent: Transformer) -> None:
        self.settings, self.rows = settings, list(reference.rows(examples))
        self.batches = [pack(row) for row in self.rows]
        with torch.no_grad():
            parent.eval()
            self.head = parent.unembedding.detach()
            self.parent_ND = [features(parent, batch.answers).clone() for batch in self.batches]

    @torch.no_grad()
    def __call__(self, model: Transformer) -> dict[str, float]:
        """What the model, in evaluation mode, makes of them now."""
        z = divergence(model, self.rows) if self.settings.kind == "kto" else 0.0
        readings: list[Readings] = []
        moved, tokens = 0.0, 0
        head = model.unembedding.detach()
        for batch, parent_ND in zip(self.batches, self.parent_ND, strict=True):
            its_ND = features(model, batch.answers)
            targets_N = batch.answers.targets_N
            found = sums(batch.answers, likelihoods(its_ND, head, targets_N).logprobs_N)
            readings.append(compare(self.settings, replace(batch, z=z), found)[1])
            ones_N = torch.ones(len(its_ND), device=its_ND.device)
            moved += float(kl_divergence(parent_ND, self.head, its_ND, head, ones_N))
            tokens += len(targets_N)
        means = _means(readings)
        return {f"heldout_{name}": value for name, value in means.items()} | {"heldout_kl": moved / tokens}
