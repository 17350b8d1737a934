"""A pre-training run from its first update to its last: log, looks, samples, checkpoints, and going back after a spike.

Everything it does follows from its settings and data; a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matura.core.artifact import Draft
from matura.core.metrics import progress
from matura.model.flops import size
from matura.model.initialize import initialize
from matura.model.shape import model_config, rate_factor
from matura.model.transformer import Transformer
from matura.train import average, objectives, optim, parallel, pretraining, resume, sharded, transforms, watch
from matura.train.loop import Diverged, Step, train
from matura.train.mixture import Mixture
from matura.train.plan import token_flops
from matura.train.precision import Precision, choose_precision
from matura.train.pretraining import Look, Material, Portions, Task
from matura.train.ranks import ALONE, Ranks
from matura.train.samples import read_samples, write_samples
from matura.train.spikes import SpikeGuard, Unstable

Sample = Callable[[Transformer], list[dict[str, str]]]
"""model -> what it writes now: each with its `prompt` and `text`."""


@dataclass
class Position:
    """How far a run is. `factor` halves with every time that it had to go back."""

    step: int = 0
    tokens: int = 0
    loss: float = math.nan
    factor: float = 1.0
    rewinds: int = 0

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Position:
        """Its own fields of what a checkpoint holds."""
        return cls(**{one.name: stored[one.name] for one in fields(cls)})


@dataclass
class Run:
    """A model in training. Made by `prepare`; `go` trains it."""

    config: Any
    model: Transformer
    material: Material
    task: Task
    portions: Portions
    batches: Mixture
    optimizer: torch.optim.Optimizer
    precision: Precision
    guard: SpikeGuard
    ranks: Ranks
    looks: dict[str, Look]
    at: Position = field(default_factory=Position)
    heldout: dict[str, float] = field(default_factory=dict)
    """What the latest look at held-out text found."""

    @classmethod
    def prepare(cls, config: Any, material: Material, task: Task, ranks: Ranks) -> Run:
        """First weights, batches and optimizer, spread over the ranks. Raises ConfigError for what does not fit."""
        shape, sizes = config.shape, config.sizes
        start = pretraining.start_id(material.format) if shape.kind == "encoder-decoder" else None
        settings = model_config(shape, material.format.tokenizer.vocab_size, sizes.sequence, start)
        model = Transformer(settings)
        model = model.initialize(config.seed) if shape.initial == "gpt2" else initialize(model, config.seed)
        if config.compile == "on":
            transforms.compile_blocks(model, config.device)
        transforms.checkpoint_activations(model, config.activation_checkpointing)
        if ranks is ALONE:
            model.to(config.device)
        precision = choose_precision(config.precision, config.device)
        ranks = parallel.place(model, ranks, precision)
        torch.manual_seed(config.seed + ranks.data_rank)  # of dropout: ranks that share a batch drop the same
        portions = pretraining.portions(sizes, settings, ranks.data)
        batches = pretraining.batches(
            material, task, portions, sizes.sequence, config.seed, ranks, config.device
        )
        optimizer = optim.build_optimizer(model, config.optimizer, ranks)
        return cls(
            config,
            model,
            material,
            task,
            portions,
            batches,
            optimizer,
            precision,
            SpikeGuard(config.spikes),
            ranks,
            pretraining.looks(material, task, sizes.sequence, sizes.rows, ranks, config.device),
        )

    def go(self, draft: Draft, sample: Sample) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one; the totals for a summary. Raises Diverged."""
        self._restore(draft.resume)
        self._forget_after(draft, self.at.step or -1)
        if self.at.step == 0:
            self._save(draft.resume)
            draft.metrics.log(0, tokens=0, **self._look(whole=not self.portions.steps))
        while True:
            try:
                self._train(draft, sample)
                return self._totals()
            except Unstable as error:
                self._go_back(draft, error)

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, whole (the averaged ones where an average was kept); on rank 0 only."""
        with average.averaged(self.optimizer):
            return parallel.whole_weights(self.model, self.ranks)

    def _train(self, draft: Draft, sample: Sample) -> None:
        config, steps = self.config, self.portions.steps
        shaping = {"label_smoothing": config.loss.smoothing, "z_loss": config.loss.z_loss}
        meter = _Meter(self)
        # As planned, with the padding of pairs: otherwise the bar would not reach its end, nor tell the time left.
        portion = self.portions.tokens
        with progress("pretrain", steps * portion, start=self.at.step * portion) as bar:
            updates = train(
                self.model,
                self.batches,
                lambda model, batch: objectives.loss(model, batch, shaping=shaping),
                self.optimizer,
                self._rate(),
                steps=steps,
                accumulate=self.portions.accumulate,
                clip=config.optimizer.clip,
                start=self.at.step,
                ranks=self.ranks,
                precision=self.precision,
                allows=self.guard.accepts,
            )
            for step in updates:
                if config.optimizer.average:
                    average.update(self.optimizer, step.step, config.optimizer.average)
                numbers = meter.after(step)
                self.at.step, self.at.tokens, self.at.loss = (
                    step.step,
                    self.at.tokens + step.tokens,
                    step.loss,
                )
                last = step.step == steps
                if last or step.step % config.watch.every == 0:
                    numbers |= self._look(whole=last)
                    self._sample(draft, sample)
                draft.metrics.log(step.step, tokens=self.at.tokens, **numbers)
                if step.step % config.save_every == 0 and not last:
                    self._save(draft.resume)
                bar.advance(portion, step=f"{step.step}/{steps}", loss=step.loss)
                meter.go_on()

    def _rate(self) -> Callable[[int], float]:
        """The learning rate by step: by the width, and halved for every time that training had to go back."""
        by_width = rate_factor(self.model.config.width) if self.config.rate == "by_width" else 1.0
        schedule = optim.build_schedule(self.config.optimizer, self.portions.steps)
        factor = by_width * self.at.factor
        return lambda step: factor * schedule(step)

    def _compute(self, function: Callable[..., Tensor], batch: Any) -> Tensor:
        with self.precision.autocast():
            return self.ranks.forward(self.model, function, batch)

    def _look(self, *, whole: bool) -> dict[str, float]:
        """Held-out text (all of it if `whole`), read with the averaged weights where an average is kept."""
        limit = None if whole else self.config.watch.tokens
        with watch.looking(self.model), average.averaged(self.optimizer):
            found = {
                name: value
                for look in self.looks.values()
                for name, value in look(self._compute, limit).items()
            }
            found |= self._activations()
        self.heldout = {
            n: value for n, value in found.items() if n.startswith("heldout") and math.isfinite(value)
        }
        return found

    def _activations(self) -> dict[str, float]:
        """Size of what each block writes for a row of the tokens that every model here reads."""
        settings = self.model.config
        ids_BT = (
            torch.arange(min(16, settings.context), device=self.config.device)[None] % settings.vocabulary
        )
        sizes = watch.activation_sizes(self.model, lambda: self._compute(watch.hidden, ids_BT))
        return {f"rms.{name}": value for name, value in sizes.items()}

    def _sample(self, draft: Draft, sample: Sample) -> None:
        """Append what the model writes now to samples.jsonl. (Weights that are cut over ranks write nothing.)"""
        if self.ranks.rank or self.config.parallel.cuts:
            return
        with watch.looking(self.model), average.averaged(self.optimizer):
            rows = [{"step": self.at.step, **one} for one in sample(self.model)]
        write_samples(draft.path, [*read_samples(draft.path), *rows])

    def _forget_after(self, draft: Draft, step: int) -> None:
        """Numbers and samples of updates after `step` will be made again."""
        if self.ranks.rank == 0:
            draft.metrics.rewind(step)
            kept = [row for row in read_samples(draft.path) if row["step"] <= step]
            write_samples(draft.path, kept)

    def _position(self) -> dict[str, Any]:
        return {
            **vars(self.at),
            "batches": self.batches.state(),
            "guard": self.guard.state(),
            "scaler": self.precision.scaler.state() if self.precision.scaler else None,
        }

    def _save(self, folder: Path) -> None:
        if self.ranks is ALONE:
            resume.save(folder, self.at.step, self.model, self.optimizer, self._position())
        else:
            sharded.save(folder, self.at.step, self.model, self.optimizer, self._position(), self.ranks)

    def _load(self, folder: Path) -> dict[str, Any] | None:
        """Weights, moments and random state of the last checkpoint; its position."""
        if self.ranks is ALONE:
            found = resume.restore(folder, self.model, self.optimizer)
        else:
            found = sharded.restore(folder, self.model, self.optimizer, self.ranks)
        return None if found is None else found[1]

    def _restore(self, folder: Path) -> None:
        position = self._load(folder)
        if position is None:
            return
        self.batches.restore(position["batches"])
        self.guard.restore(position["guard"])
        if self.precision.scaler and position["scaler"]:
            self.precision.scaler.restore(position["scaler"])
        self.at = Position.of(position)

    def _go_back(self, draft: Draft, error: Unstable) -> None:
        """To the weights of the last checkpoint with half the learning rate, past the data that came in between."""
        rewinds = self.at.rewinds + 1
        if rewinds > self.config.spikes.rewinds:
            raise Diverged(
                f"step {self.at.step + 1}: {error}, after going back {rewinds - 1} times. Start again with a lower "
                f"learning rate (optimizer.lr={self.config.optimizer.lr:g}), a longer warm-up, or smaller "
                "optimizer.clip."
            ) from error
        factor = self.at.factor / 2
        position = self._load(draft.resume)
        assert position is not None  # one was saved before the first update
        self.at = Position.of(position)
        self.at.rewinds, self.at.factor = rewinds, factor
        self.guard = SpikeGuard(self.config.spikes, self.guard.left_out)
        self._forget_after(draft, self.at.step)
        self._save(draft.resume)

    def _totals(self) -> dict[str, Any]:
        counted = size(self.model.config)
        return {
            "steps": self.portions.steps,
            "tokens": self.at.tokens,
            "loss": self.at.loss,
            "parameters": counted.all,
            "block_parameters": counted.blocks,
            "flops": token_flops(self.config, self.model.config) * self.at.tokens,
            "updates_left_out": self.guard.left_out,
            "rewinds": self.at.rewinds,
            "heldout": self.heldout,
        }


class _Meter:
    """Numbers of every update for the log: rates, utilisation, memory."""

    def __init__(self, run: Run) -> None:
        self.run = run
        device = run.config.device
        self.flops = token_flops(run.config, run.model.config)
        self.peak = watch.matrix_speed(device, run.precision.dtype) * run.ranks.world
        self.go_on()

    def go_on(self) -> None:
        """The next update begins now: what looks and checkpoints took is not its time."""
        self.began = time.perf_counter()

    def after(self, step: Step) -> dict[str, float]:
        speed = step.tokens / (time.perf_counter() - self.began)
        return {
            "loss": step.loss,
            "lr": step.lr,
            "grad_norm": step.grad_norm,
            "tokens_per_s": speed,
            "mfu": speed * self.flops / self.peak,
            "memory": pretraining.peak_memory(self.run.config.device),
            "left_out": self.run.guard.left_out + step.skipped,
        }
