"""A fine-tuning from its first update to its last: log, looks, checkpoints, and stopping by the forgetting meter.

Everything it does follows from its settings and data; a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from torch import nn

from matura.core.artifact import Draft
from matura.core.metrics import progress
from matura.model.transformer import Transformer
from matura.train import optim, resume
from matura.train.limit import Limit
from matura.train.loop import Objective, Step, train
from matura.train.meter import Looks


class Source(Protocol):
    """Batches with a position that can be saved: an endless iterator."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    @property
    def mean_tokens(self) -> float:
        """Tokens of an average batch."""

    @property
    def epochs(self) -> list[float]:
        """How often each part of the data has been seen."""

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that `state` gave."""


def _nothing() -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Lesson:
    """What a model is to learn: batches with their objective, what is looked at between updates, and what all of it is
    made of, for the summary.

    `steps` is how many updates (None: from the setting `tokens`), `accumulate` how many batches make one, `writer` the
    part of the model that is looked at, where something else is trained beside it (None: all of it), `rates` says
    which parameters learn at a multiple of the learning rate, `notes` gives further numbers of the update that was just
    made, for the log.
    """

    batches: Source
    objective: Objective
    looks: Looks
    counts: dict[str, Any]
    steps: int | None = None
    accumulate: int = 1
    writer: Transformer | None = None
    rates: Sequence[tuple[Sequence[nn.Parameter], float]] = ()
    notes: Callable[[], dict[str, float]] = _nothing


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
    """A model in fine-tuning. The settings have `method`, `optimizer`, `forgetting`, `meter_every`, `save_every`, and
    `tokens` where the lesson does not say its steps."""

    config: Any
    model: nn.Module
    lesson: Lesson
    at: Position = field(default_factory=Position)
    stopped: bool = False
    seen: dict[str, float] = field(default_factory=dict)
    """What the latest look found."""

    def go(self, draft: Draft) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; the totals for a summary.

        Raises Diverged, and MaturaError when nothing within the limit of forgetting could be kept.
        """
        config, batches = self.config, self.lesson.batches
        steps = self.lesson.steps or max(1, round(config.tokens / batches.mean_tokens))
        settings = config.optimizer.of(config.method)
        optimizer = optim.build_optimizer(self.model, settings)
        for parameters, factor in self.lesson.rates:
            optim.scale_rate(optimizer, parameters, factor)
        limit = Limit(config.forgetting, draft.resume)
        self._restore(draft, optimizer, limit)
        total = steps * self.lesson.accumulate * batches.mean_tokens
        with progress("finetune", total, start=self.at.tokens) as bar:
            updates = train(
                self.model,
                batches,
                self.lesson.objective,
                optimizer,
                optim.build_schedule(settings, steps),
                steps=steps,
                accumulate=self.lesson.accumulate,
                clip=settings.clip,
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

    @property
    def _writer(self) -> Any:
        """What is looked at."""
        return self.model if self.lesson.writer is None else self.lesson.writer

    def _restore(self, draft: Draft, optimizer: Any, limit: Limit) -> None:
        if (found := resume.restore(draft.resume, self.model, optimizer)) is not None:
            _, position = found
            self.lesson.batches.restore(position["batches"])
            limit.restore(position["limit"])
            self.at = Position.of(position)
        draft.metrics.rewind(self.at.step or -1)
        if self.at.step == 0:
            draft.metrics.log(0, tokens=0, **self.lesson.looks(self._writer))

    def _look(self, draft: Draft, limit: Limit, step: Step, last: bool) -> None:
        every = self.config.meter_every
        seen = self.lesson.looks(self._writer) if last or (every and step.step % every == 0) else {}
        if seen:
            self.seen = seen
            heldout = seen.get("heldout_loss")
            self.stopped = limit.look(step.step, self.lesson.looks.change(seen), heldout, self.model)
        draft.metrics.log(
            step.step,
            tokens=self.at.tokens,
            loss=step.loss,
            lr=step.lr,
            grad_norm=step.grad_norm,
            **self.lesson.notes(),
            **seen,
        )

    def _totals(self, kept: int | None) -> dict[str, Any]:
        """`kept` is the step whose weights the model has, None for the last one's."""
        looks, meter = self.lesson.looks, self.lesson.looks.meter
        seen = self.seen if kept in (None, self.at.step) else looks(self._writer)
        forgetting = meter and {
            "parent_bpb": meter.parent.bpb,
            "bpb": seen["general_bpb"],
            "change": looks.change(seen),
            "kl": seen["general_kl"],
            "tokens": meter.text.tokens,
            "stopped": self.stopped,
            "weights_of_step": self.at.step if kept is None else kept,
        }
        return {
            "steps": self.at.step,
            "tokens": self.at.tokens,
            "loss": self.at.loss,
            **{name: value for name, value in seen.items() if name.startswith("heldout_")},
            "epochs": [round(one, 3) for one in self.lesson.batches.epochs],
            "forgetting": forgetting,
        }
