"""A practice from its inputs to its artifact: what PPO and GRPO have in common around what each of them learns."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from matura.align import outcome, rewards
from matura.align.rewards import Weighted
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.practice_settings import Practice
from matura.model.transformer import Transformer
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from matura.train import finetuning, preparing, resume
from matura.train.finetuning import Lesson

Inputs = dict[str, Artifact | RawInput]
Teach = Callable[[Transformer, Transformer, Format, Weighted], tuple[nn.Module, Lesson]]
"""(model, its parent, format, rewards) -> what is trained, the model or more, and with what."""


def practise(config: Practice, inputs: Inputs, draft: Draft, title: str, teach: Teach) -> Artifact:
    """Make the model ready, train it by what `teach` gives, and save it: the whole one, or an adapter on the parent.

    Raises MaturaError for rewards that judge nothing, for prompts that do not fit, and when what was drawn is not what
    is trained; Diverged when the loss is no longer finite.
    """
    given = inputs["model"]
    assert isinstance(given, Artifact)
    preparing.check_whole(given)
    format = conversation.load(given.path)
    judges = rewards.build(config.rewards, inputs)
    with resume.deterministic(config.seed):
        model, parent = preparing.prepare(config, given.path, format)
        trained, lesson = teach(model, parent, format, judges)
        totals = finetuning.Run(config, trained, lesson).go(draft)
    preparing.save(draft.path, model, config, format)
    label = preparing.quantization(config, given)
    return outcome.commit(draft, title, config, totals, lesson.counts, label)
