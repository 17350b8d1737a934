"""Anchors: what holds a model near its parent while it learns something new.

An anchor is a value that adds to a batch's summed loss; `anchored` composes them with the loss of the next token. The
loop divides by the weight of the whole step as ever, so accumulation and ranks change nothing.

    L = 1/W sum over trained tokens of w (-log q(token) + kl KL(parent || child)) + l2 / 2 |theta - theta_0|^2

The first is distillation from the model's own past (Learning without Forgetting, arXiv:1606.09282, with the whole
distribution), the second L2-SP (arXiv:1802.01483).

Shape suffixes: T tokens of a row, N trained positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from matura.core.errors import ConfigError
from matura.core.forgetting_settings import Forgetting, Part
from matura.model.divergence import kl_divergence
from matura.model.heads import Unembedding
from matura.model.logprobs import cross_entropy
from matura.model.peft import updates
from matura.model.transformer import Transformer
from matura.train import objectives
from matura.train.batches import PackedBatch, features
from matura.train.loop import Objective

Anchor = Callable[[Transformer, PackedBatch, Tensor], Tensor]
"""(model, batch, its features [N, D] at the trained positions) -> what is added to the batch's summed loss."""

Teacher = Callable[[PackedBatch], tuple[Tensor, Unembedding]]
"""batch -> the parent's features [N, D] at the trained positions, and its output matrix."""


def anchored(*anchors: Anchor) -> Objective:
    """The loss of the next token with anchors. Without any it is `next_token` itself, bit for bit."""
    if not anchors:
        return objectives.next_token

    def loss(model: Transformer, batch: PackedBatch) -> Tensor:
        features_ND = features(model, batch)
        total = cross_entropy(features_ND, model.unembedding, batch.targets_N, batch.weights_N)
        for anchor in anchors:
            total = total + anchor(model, batch, features_ND)
        return total

    return loss


def objective(settings: Forgetting, model: Transformer, parent: Transformer) -> Objective:
    """The objective that settings ask for. A model with updates is its own parent where they are off, so `parent`
    serves the others."""
    anchors: list[Anchor] = []
    own = updates.updated(model)
    if settings.kl:
        teacher = without_updates(model) if own else frozen(parent)
        anchors.append(to_predictions(settings.kl, teacher, settings.kl_on))
    if settings.l2:
        anchors.append(to_weights(settings.l2, dict(parent.named_parameters())))
    return anchored(*anchors)


def to_predictions(strength: float, parent: Teacher, part: Part) -> Anchor:
    """`strength` times the divergence from the parent at the trained tokens of a part of every batch.

    The parent reads only that part.
    """

    def anchor(model: Transformer, batch: PackedBatch, features_ND: Tensor) -> Tensor:
        chosen_N, cut = cut_out(batch, part)
        if not len(cut.where_N):
            return features_ND.new_zeros(())
        parent_ND, head = parent(cut)
        return strength * kl_divergence(
            features_ND[chosen_N], model.unembedding, parent_ND, head, cut.weights_N
        )

    return anchor


def to_weights(strength: float, parent: Mapping[str, Tensor]) -> Anchor:
    """`strength` / 2 times the squared distance of the trained weights from the parent's, once a step."""

    def anchor(model: Transformer, batch: PackedBatch, features_ND: Tensor) -> Tensor:
        return 0.5 * strength * batch.weight * squared_distance(model, parent)

    return anchor


def frozen(parent: Transformer) -> Teacher:
    """A second model as the teacher. (One loaded from disk takes no memory of its own: its weights are the file's.)"""
    parent.eval().requires_grad_(False)
    return lambda batch: _told(parent, batch)


def without_updates(model: Transformer) -> Teacher:
    """The model itself with its LoRA updates off."""

    def read(batch: PackedBatch) -> tuple[Tensor, Unembedding]:
        training = model.training
        with updates.off(model):
            told = _told(model.eval(), batch)
        model.train(training)
        return told

    return read


def _told(parent: Transformer, batch: PackedBatch) -> tuple[Tensor, Unembedding]:
    """What a model that is frozen says. Gradients are on all the same: the same kernels run as for the child, so that
    equal weights give equal bits, and nothing is kept, since nothing needs one."""
    with torch.enable_grad():
        return features(parent, batch), parent.unembedding


def cut_out(batch: PackedBatch, part: Part) -> tuple[Tensor, PackedBatch]:
    """Which of the trained positions [N] belong to a part of a batch, and that part as a batch of its own.

    The new material is a batch's first source, replay its second. A part that is not there is empty.
    """
    if part == "both":
        return torch.ones_like(batch.where_N, dtype=torch.bool), batch
    lengths = batch.mask.lengths
    border = batch.sources[0] if batch.sources else len(lengths)
    first, last = (border, len(lengths)) if part == "replay" else (0, border)
    begin, end = sum(lengths[:first]), sum(lengths[:last])
    chosen_N = (batch.where_N >= begin) & (batch.where_N < end)
    return chosen_N, replace(
        batch,
        ids_1T=batch.ids_1T[:, begin:end],
        mask=batch.mask.part(first, last),
        where_N=batch.where_N[chosen_N] - begin,
        targets_N=batch.targets_N[chosen_N],
        weights_N=batch.weights_N[chosen_N],
        sources=(),
    )


def squared_distance(model: Transformer, parent: Mapping[str, Tensor]) -> Tensor:
    """Sum of the squared distances of all trained weights from the parent's of the same name; of an update, its
    squared norm, which is the distance of the weight that it changes.

    Raises ConfigError for a trained weight that the parent does not have.
    """
    own = updates.parameters(model)
    found = [updates.squared_size(module) for module in updates.updated(model)]
    for name, weight in model.named_parameters():
        if not weight.requires_grad or id(weight) in own:
            continue
        if name not in parent:
            raise ConfigError(
                f"forgetting.l2: the parent has no weight {name}, so there is no distance from it"
            )
        found.append(_SquaredDistance.apply(weight, parent[name]))
    return torch.stack(found).sum()


class _SquaredDistance(torch.autograd.Function):
    """|x - y|^2 without keeping the difference, which is as large as the model, for the way back."""

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, y)
        return (x - y).square_().sum()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        x, y = ctx.saved_tensors
        return (x - y).mul_(2 * grad), None
