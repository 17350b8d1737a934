"""The loss by parameters and tokens, L(N, D) = E + A / N^a + B / D^b, fitted on small runs and asked about a larger
one (arXiv:2203.15556, approach 3; branches of one trunk as in arXiv:2405.18392).

Each size trains one trunk at a constant rate; at 5, 10 and 20 tokens for each parameter a branch leaves it, in which
the rate falls. `--text` is the folder of a `tokens` artifact (what `matura encode` made), large enough for the
largest run. Finished branches are kept in `--results`/scaling, and trunks, every few hundred updates, in the
workspace, so the hours may be spent in pieces; `--cases 800K 3.2M` trains only these, without a law, which several
processes may do side by side.

The recorded branches read 54.7M tokens of Debian's documentation (the packages that recipes/corpus.yaml names), made by

    matura run recipes/corpus.yaml corpus.gopher.use=off corpus.repetition.use=off corpus.toxicity.use=off
    matura tokenizer corpus=corpus/corpus vocabulary=512 compare=[] max_bytes=20000000 --name law
    matura encode corpus=corpus/corpus tokenizer=law/tokenizer --name law-tokens
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.options import Options
from matura.core import artifact
from matura.core.picture import svg
from matura.core.pretrain_settings import Shape, amount
from matura.core.settings import OptimizerConfig
from matura.core.workspace import Workspace
from matura.data import shards
from matura.data.shards import TokenShards
from matura.model.config import ModelConfig
from matura.model.flops import size
from matura.model.initialize import initialize
from matura.model.shape import model_config, rate_factor
from matura.model.transformer import Transformer
from matura.train import resume, watch
from matura.train.blocks import TokenBatches, held_out
from matura.train.loop import train
from matura.train.objectives import loss
from matura.train.optim import build_optimizer

SIZES, RATIOS = ("100K", "200K", "400K", "800K", "1.6M"), (5, 10, 20)
ASKED, ASKED_RATIO = "3.2M", 10
QUICK, QUICK_ASKED = ("10K", "20K"), "40K"
ROWS, LENGTH = 16, 256
DECAY, WARMUP = 0.2, 100  # share of a branch in which the rate falls; updates in which it rises
RATE = 0.02
HELDOUT_TOKENS = 400_000
SAVE_EVERY = 500  # updates of a trunk that an end may cost
TOLERANCE = 0.02


def run(options: Options) -> bool:
    """Whether the law predicts the asked run within 2%, and better than the loss of the largest fitted run."""
    tokens = shards.load(_text(options))
    torch.set_num_threads(options.threads)
    sizes, ratios = (QUICK, RATIOS[:2]) if options.quick else (SIZES, RATIOS)
    wanted = {**dict.fromkeys(sizes, ratios), QUICK_ASKED if options.quick else ASKED: (ASKED_RATIO,)}
    if unknown := set(options.cases) - set(wanted):
        raise SystemExit(f"scaling: no size {', '.join(sorted(unknown))}; there are {', '.join(wanted)}")
    measured = [_measure(name, wanted[name], tokens, options) for name in options.cases or wanted]
    if options.cases:
        return True
    *rows, asked = itertools.chain.from_iterable(measured)
    law = fit([(row["parameters"], row["tokens"], row["loss"]) for row in rows])
    predicted = law_at(law, asked["parameters"], asked["tokens"])
    largest = max(rows, key=lambda row: (row["parameters"], row["tokens"]))["loss"]
    wrong, naive = (abs(guess / asked["loss"] - 1) for guess in (predicted, largest))
    columns = ("parameters", "tokens", "loss", "bits_per_byte")
    record.table(
        [*columns, "law"],
        [[*(r[c] for c in columns), law_at(law, r["parameters"], r["tokens"])] for r in rows],
    )
    print(
        f"asked: {asked['loss']:.4f}, predicted {predicted:.4f} ({wrong:.2%} off; the largest run: {naive:.2%} off)"
    )
    figures = {
        "rows": rows,
        "asked": asked,
        "law": law,
        "predicted": predicted,
        "wrong": wrong,
        "naive": naive,
    }
    if not options.quick:
        (options.results / "scaling.svg").write_text(picture(rows, asked, law), encoding="utf-8")
    record.save("scaling", options, figures)
    return options.quick or (wrong <= TOLERANCE and wrong < naive)


@dataclass
class Trunk:
    """A model in training at a constant rate, with `at` updates behind it."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    batches: TokenBatches
    at: int = 0

    @classmethod
    def begin(cls, config: ModelConfig, tokens: TokenShards, seed: int) -> Trunk:
        model = initialize(Transformer(config), seed)
        return cls(model, _optimizer(model), TokenBatches(tokens, rows=ROWS, length=LENGTH, seed=seed))

    def restore(self, folder: Path) -> None:
        """Go on from what `save` left, if anything."""
        if (found := resume.restore(folder, self.model, self.optimizer)) is not None:
            self.at, position = found
            self.batches.restore(position["batches"])

    def save(self, folder: Path) -> None:
        """Keep it for another day."""
        folder.mkdir(parents=True, exist_ok=True)
        resume.save(folder, self.at, self.model, self.optimizer, {"batches": self.batches.state()})

    def branch(self, tokens: TokenShards, seed: int) -> Trunk:
        """A copy that goes its own way."""
        other = Trunk.begin(self.model.config, tokens, seed)
        other.model.load_state_dict(self.model.state_dict())
        other.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        other.batches.restore(self.batches.state())
        other.at = self.at
        return other

    def grow(self, rate: Callable[[int], float], steps: int) -> None:
        """Train until `steps` updates."""
        updates = train(self.model, self.batches, loss, self.optimizer, rate, steps=steps, start=self.at)
        for step in updates:
            if step.step % 200 == 0:
                print(f"  step {step.step}/{steps}: {step.loss:.4f}", flush=True)
        self.at = steps


def _measure(
    name: str, ratios: tuple[int, ...], tokens: TokenShards, options: Options
) -> list[dict[str, Any]]:
    """One row for each branch of the trunk of one size, in order; what is known of this text is read."""
    text = artifact.load(_text(options)).id
    folder = None  # where the trunk is kept; a quick run keeps none
    if not options.quick:
        place = Workspace(options.workspace).root / "benchmarks" / "scaling"
        folder = place / f"{text[:12]}-{name}-{options.seed}"

    def row(ratio: int) -> dict[str, Any]:
        return record.kept(
            f"scaling/{name}-{ratio}-{options.seed}",
            options,
            lambda: {
                "name": name,
                "ratio": ratio,
                "text": text,
                **_branch(name, ratio, tokens, folder, options.seed),
            },
            lambda found: found["text"] == text,
        )

    return [row(ratio) for ratio in ratios]


def _branch(name: str, ratio: int, tokens: TokenShards, folder: Path | None, seed: int) -> dict[str, Any]:
    """What a branch ends with: its trunk is grown to where it leaves, from where an earlier branch or run left it."""
    began, config = time.monotonic(), model_config(Shape(size=name), tokens.coding.vocabulary, LENGTH)
    blocks, width = size(config).blocks, config.width
    steps = round(ratio * blocks / (ROWS * LENGTH))
    leave = round(steps * (1 - DECAY))
    trunk = Trunk.begin(config, tokens, seed)
    if folder is not None:
        trunk.restore(folder)
    if trunk.at > leave:  # what is on disk is past the branch
        trunk = Trunk.begin(config, tokens, seed)
    while trunk.at < leave:
        trunk.grow(_rising(width), min(trunk.at + SAVE_EVERY, leave))
        if folder is not None:
            trunk.save(folder)
    branch = trunk.branch(tokens, seed)
    branch.grow(_falling(width, leave, steps), steps)
    found = {"parameters": blocks, "tokens": steps * ROWS * LENGTH, **_heldout(branch.model, tokens)}
    print(f"{name}, {ratio} tokens each: {found}", flush=True)
    return {**found, "seconds": round(time.monotonic() - began)}


def _text(options: Options) -> Path:
    if options.text is None:
        raise SystemExit(
            "scaling: --text is the folder of a `tokens` artifact; make one with `matura encode`"
        )
    return options.text


def _optimizer(model: Transformer) -> torch.optim.Optimizer:
    return build_optimizer(model, OptimizerConfig(kind="muon", lr=RATE, weight_decay=0.0))


def _rising(width: int) -> Callable[[int], float]:
    return lambda step: RATE * rate_factor(width) * min(1.0, (step + 1) / WARMUP)


def _falling(width: int, leave: int, steps: int) -> Callable[[int], float]:
    rise = _rising(width)
    return lambda step: rise(step) * (1 - math.sqrt((step + 1 - leave) / (steps - leave)))


def _heldout(model: Transformer, tokens: TokenShards) -> dict[str, float]:
    """Nats a token and bits a byte of held-out text."""
    held = list(held_out(tokens, length=LENGTH, rows=ROWS, limit=HELDOUT_TOKENS))
    with watch.looking(model):
        nats = watch.mean_loss(lambda function, batch: function(model, batch), [one.batch for one in held])
        bits = watch.bits_per_byte(lambda function, batch: function(model, batch), held)
    return {"loss": nats, "bits_per_byte": bits}


def fit(points: list[tuple[float, float, float]]) -> dict[str, float]:
    """E, A, B, a, b: least Huber loss of log L, from the best of a grid of starts (arXiv:2203.15556, section 3.3)."""
    n, d, measured = (torch.tensor(column, dtype=torch.float64).log() for column in zip(*points, strict=True))

    def error(law: torch.Tensor) -> torch.Tensor:
        e, a, b, alpha, beta = law
        guessed = torch.logsumexp(torch.stack([e.expand_as(n), a - alpha * n, b - beta * d]), 0)
        return torch.nn.functional.huber_loss(guessed, measured, delta=1e-3, reduction="sum")

    best, least = torch.zeros(5), math.inf
    for start in itertools.product((-1.0, 0.0, 1.0), (2.0, 6.0), (2.0, 6.0), (0.3, 0.6), (0.3, 0.6)):
        law = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        search = torch.optim.LBFGS([law], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-12)

        def again(law: torch.Tensor = law, search: torch.optim.LBFGS = search) -> torch.Tensor:
            search.zero_grad()
            found = error(law)
            found.backward()
            return found

        search.step(again)
        found = float(error(law).detach())
        if found < least:
            best, least = law.detach(), found
    e, a, b, alpha, beta = best.tolist()
    return {"E": math.exp(e), "A": math.exp(a), "B": math.exp(b), "a": alpha, "b": beta, "error": least}


def law_at(law: dict[str, float], parameters: float, tokens: float) -> float:
    """The loss that a law expects."""
    return law["E"] + law["A"] / parameters ** law["a"] + law["B"] / tokens ** law["b"]


def picture(rows: list[dict[str, Any]], asked: dict[str, Any], law: dict[str, float]) -> str:
    """Measured losses and the law's curves, by parameters; a colour for each ratio of tokens."""

    def draw(axes: Any) -> None:
        for ratio, colour in zip(RATIOS, ("#3b82c4", "#2a9d6f", "#d1495b"), strict=True):
            own = [row for row in rows if row["ratio"] == ratio]
            axes.plot([r["parameters"] for r in own], [r["loss"] for r in own], "o", color=colour)
            grid = [amount("80K") * 1.1**k for k in range(42)]
            axes.plot(
                grid, [law_at(law, n, ratio * n) for n in grid], color=colour, label=f"{ratio} tokens each"
            )
        axes.plot([asked["parameters"]], [asked["loss"]], "*", color="#2a9d6f", markersize=12, label="asked")
        axes.set_xscale("log")
        axes.set_xlabel("parameters of the blocks")
        axes.set_ylabel("held-out nats a token")
        axes.legend()

    return svg(3.2, draw, "Loss by parameters and tokens").replace("currentColor", "#5d6878")
