"""Settings of GRPO: what an answer is compared with, how tokens are averaged, and how far one update may go."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matura.core.practice_settings import Cuts


class GroupUpdates(Cuts):
    """From the answers of one iteration to its updates."""

    advantages: Literal["std", "mean", "leave_one_out"] = Field(
        "std",
        description="How much better than its group an answer is. std: reward minus the group's mean, by its standard "
        "deviation (GRPO, arXiv:2402.03300); mean: minus the mean (Dr. GRPO, arXiv:2503.20783); leave_one_out: minus "
        "the mean of the others (RLOO, arXiv:2402.14740)",
    )
    reduction: Literal["token", "sequence", "constant"] = Field(
        "token",
        description="What is averaged over an update. token: all tokens alike (DAPO, arXiv:2503.14476); sequence: all "
        "answers alike, whatever their length (GRPO as published); constant: the sum by answers x max_new_tokens (Dr. "
        "GRPO)",
    )
    clip_low: float = Field(
        0.2, gt=0, lt=1, description="How much less likely a token may become in an iteration, as a share"
    )
    clip_high: float = Field(
        0.2,
        gt=0,
        description="How much more likely; above clip_low it keeps rare tokens alive (DAPO: 0.28)",
    )
    kl: float = Field(
        0.0,
        ge=0,
        description="Cost of a nat a token away from the parent (k3 times the ratio, whose gradient is that of "
        "KL(policy || parent)); 0: none",
    )
