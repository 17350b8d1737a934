"""What a practice begins with: the prompts that fit, the reference, and looks at prompts that are held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matura.align import rollouts
from matura.align.heldout import Heldout
from matura.align.rewards import Weighted
from matura.align.sequences import Reference, frozen
from matura.core.artifact import Artifact, RawInput
from matura.core.errors import ConfigError, MaturaError
from matura.core.practice_settings import Practice
from matura.core.preferences import Ranking
from matura.data.preferences import prompts
from matura.evaluate.general import meter
from matura.model.heads import LanguageHead
from matura.model.transformer import Transformer
from matura.tokenizer.conversation import Format
from matura.train.meter import Looks


@dataclass(frozen=True)
class Asked:
    """Prompts to answer, log-probabilities of the parent at the temperature, looks, and counts for the summary:
    `heldout_prompts` are those that looks answer."""

    prompts: list[Ranking]
    reference: Reference
    looks: Looks
    counts: dict[str, Any]


def asked(
    config: Practice,
    inputs: Mapping[str, Artifact | RawInput],
    model: Transformer,
    parent: Transformer,
    format: Format,
    judges: Weighted,
) -> Asked:
    """Read the prompts. Raises ConfigError for a model that writes no text, MaturaError when no prompt fits or all are
    held out."""
    if model.decoder is None or not isinstance(model.head, LanguageHead):
        raise ConfigError(f"{inputs['model'].path} writes no text, so it has nothing to practise")
    loaded = prompts.load(inputs["prompts"], config.data)
    if not loaded.train:
        raise MaturaError(f"{inputs['prompts'].path}: all prompts are held out, and none is left to practise")
    longest = config.rollouts.max_new_tokens
    kept, left = rollouts.fitting(loaded.train, format, model, longest)
    reference = frozen(parent, config.rollouts.temperature)
    looks, shown = Looks(), list[Ranking]()
    if config.meter_every:
        also: tuple[Heldout, ...] = ()
        if held := loaded.heldout[: config.meter_prompts]:
            shown, _ = rollouts.fitting(held, format, model, longest, "held-out prompts")
            also = (Heldout(format, shown, judges, config.rollouts, config.seed, reference),)
        general = meter(inputs.get("forgetting.text"), format, parent, config.meter_tokens)
        looks = Looks(None, general, also)
    counts = {"prompts": len(kept), "heldout_prompts": len(shown), "too_long": left, **loaded.found}
    return Asked(kept, reference, looks, counts)
