"""A fine-tuning from its first update to its last: log, looks, checkpoints, and stopping by the forgetting meter.

Everything it does follows from its settings and data; a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from matura.core.artifact import Draft
from matura.core.metrics import progress
from matura.model.transformer import Transformer
from matura.train import anchors, optim, resume
from matura.train.batches import PackedBatches
from matura.train.limit import Limit
from matura.train.loop import Step, train
from matura.train.meter import Looks


@dataclass
class Position:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    loss: float = 0.0

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Position:
        """Its own fields of what a checkpoint holds."""
        return cls(**{one.name: stored[one.name] for one in fields(cls)})

    def after(self, step: Step) -> Position:
        """The position one update later."""
        return Position(step.step, self.tokens + step.tokens, step.loss)


@dataclass
class Run:
    """A model in fine-tuning. `parent` is the model it came from, which anchors and meter compare with."""

    config: Any
    model: Transformer
    parent: Transformer
    batches: PackedBatches
    looks: Looks
    at: Position = field(default_factory=Position)
    stopped: bool = False
    seen: dict[str, float] = field(default_factory=dict)
    """What the latest look found."""

    def go(self, draft: Draft) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; the totals for a summary.

        Raises Diverged, and MaturaError when nothing within the limit of forgetting could be kept.
        """
        config, batches = self.config, self.batches
        steps = max(1, round(config.tokens / batches.mean_tokens))
        optimizer = optim.build_optimizer(self.model, config.optimizer)
        limit = Limit(config.forgetting, draft.resume)
        self._restore(draft, optimizer, limit)
        with progress("finetune", config.tokens, start=self.at.tokens) as bar:
            updates = train(
                self.model,
                batches,
                anchors.objective(config.forgetting, self.model, self.parent),
                optimizer,
                optim.build_schedule(config.optimizer, steps),
                steps=steps,
                clip=config.optimizer.clip,
                start=self.at.step,
            )
            for step in updates:
                self.at = self.at.after(step)
                last = step.step == steps
                self._look(draft, limit, step, last)
                if step.step % config.save_every == 0 and not (last or self.stopped):
                    position = {**vars(self.at), "batches": batches.state(), "limit": limit.state()}
                    resume.save(draft.resume, step.step, self.model, optimizer, position)
                    limit.tidy()
                bar.advance(step.tokens, step=f"{step.step}/{steps}", loss=step.loss)
                if self.stopped:
                    break
        return self._totals(limit.finish(self.model))

    def _restore(self, draft: Draft, optimizer: Any, limit: Limit) -> None:
        if (found := resume.restore(draft.resume, self.model, optimizer)) is not None:
            _, position = found
            self.batches.restore(position["batches"])
            limit.restore(position["limit"])
            self.at = Position.of(position)
        draft.metrics.rewind(self.at.step)
        if self.at.step == 0:
            draft.metrics.log(0, tokens=0, **self.looks(self.model))

    def _look(self, draft: Draft, limit: Limit, step: Step, last: bool) -> None:
        every = self.config.meter_every
        seen = self.looks(self.model) if last or (every and step.step % every == 0) else {}
        if seen:
            self.seen = seen
            heldout = seen.get("heldout_loss")
            self.stopped = limit.look(step.step, self.looks.change(seen), heldout, self.model)
        draft.metrics.log(
            step.step, tokens=self.at.tokens, loss=step.loss, lr=step.lr, grad_norm=step.grad_norm, **seen
        )

    def _totals(self, kept: int | None) -> dict[str, Any]:
        """`kept` is the step whose weights the model has, None for the last one's."""
        meter = self.looks.meter
        seen = self.seen if kept in (None, self.at.step) else self.looks(self.model)
        forgetting = meter and {
            "parent_bpb": meter.parent.bpb,
            "bpb": seen["general_bpb"],
            "change": self.looks.change(seen),
            "kl": seen["general_kl"],
            "tokens": meter.text.tokens,
            "stopped": self.stopped,
            "weights_of_step": self.at.step if kept is None else kept,
        }
        return {
            "steps": self.at.step,
            "tokens": self.at.tokens,
            "loss": self.at.loss,
            "heldout_loss": seen.get("heldout_loss"),
            "epochs": [round(source.epochs, 3) for source in self.batches.sources],
            "forgetting": forgetting,
        }
