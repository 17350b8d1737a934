"""Golden losses of GRPO by TRL's own trainer, for tests/align/test_grpo.py: `python -m benchmarks.grpo_reference`.

The trainer's loss function is called on fixed tensors: nothing of it is replaced but the forward pass.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

# Four answers of 3, 1, 4 and 2 tokens: log-probabilities now, at the draw and of the reference, and advantages.
LENGTHS = (3, 1, 4, 2)
NOW = (-0.5, -1.25, -0.1, -2.0, -0.7, -0.9, -1.1, -3.0, -0.05, -0.4)
OLD = (-0.6, -1.0, -0.1, -2.5, -0.7, -1.3, -1.0, -2.6, -0.35, -0.4)
REFERENCE = (-0.55, -1.5, -0.3, -1.8, -0.6, -0.9, -1.4, -2.2, -0.2, -0.5)
ADVANTAGES = (1.2, -0.8, 0.5, -0.9)
LONGEST = 5

REDUCTIONS = {"sequence": "grpo", "token": "dapo", "constant": "dr_grpo"}
"""Our names -> TRL's `loss_type`."""


def loss(
    lengths: tuple[int, ...],
    now: tuple[float, ...],
    old: tuple[float, ...],
    reference: tuple[float, ...],
    advantages: tuple[float, ...],
    *,
    kind: str,
    kl: float,
    longest: int,
    low: float = 0.2,
    high: float = 0.28,
) -> tuple[float, list[float]]:
    """TRL's loss of one batch, and its gradient by the log-probabilities `now`."""
    from collections import defaultdict

    from trl import GRPOTrainer

    widest = max(lengths)
    mask_BT = torch.tensor([[i < n for i in range(widest)] for n in lengths], dtype=torch.float64)

    def ragged(values: tuple[float, ...], leaf: bool = False) -> tuple[Tensor, Tensor]:
        flat_N = torch.tensor(values, dtype=torch.float64, requires_grad=leaf)
        full_BT = torch.zeros_like(mask_BT).masked_scatter(mask_BT.bool(), flat_N)
        return flat_N, full_BT

    flat_N, now_BT = ragged(now, leaf=True)
    trainer: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        loss_type=kind,
        beta=kl,
        epsilon_low=low,
        epsilon_high=high,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        aux_loss_enabled=False,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        max_completion_length=longest,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        args=SimpleNamespace(delta=None, use_bias_correction_kl=True, steps_per_generation=1),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, gather_for_metrics=lambda x: x
        ),
        _get_per_token_logps_and_entropies=lambda *a, **k: (now_BT, torch.zeros_like(now_BT), None),
    )
    inputs = {
        "prompt_ids": torch.ones(len(lengths), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(lengths), 1, dtype=torch.long),
        "completion_ids": torch.ones(mask_BT.shape, dtype=torch.long),
        "completion_mask": mask_BT,
        "advantages": torch.tensor(advantages, dtype=torch.float64),
        "old_per_token_logps": ragged(old)[1],
        "ref_per_token_logps": ragged(reference)[1],
        "num_items_in_batch": mask_BT.sum(),
    }
    found = GRPOTrainer._compute_loss(trainer, None, inputs)
    found.backward()
    assert flat_N.grad is not None
    return float(found.detach()), flat_N.grad.tolist()


def golden(lengths: tuple[int, ...], *rest: Any, longest: int) -> dict[tuple[str, float], Any]:
    """(our reduction, kl) -> (loss, gradient)."""
    return {
        (ours, kl): loss(lengths, *rest, kind=theirs, kl=kl, longest=longest)
        for ours, theirs in REDUCTIONS.items()
        for kl in (0.0, 0.1)
    }


if __name__ == "__main__":
    found = golden(LENGTHS, NOW, OLD, REFERENCE, ADVANTAGES, longest=LONGEST)
    for key, (value, slope) in found.items():
        print(f"    {key!r}: ({value!r}, ({', '.join(f'{one:.10g}' for one in slope)})),")
