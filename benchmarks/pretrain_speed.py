"""One step of pre-training beside nanoGPT: the same GPT-2 of 10.65M parameters, batch, optimizer and clipping.

6 layers, 6 heads, 384 wide, 256 characters of context, a vocabulary of 65, 12 rows, float32, AdamW; no dropout, no
biases, learned positions, output matrix tied. nanoGPT runs eager and compiled, ours always eager. Every measurement is
a process of its own; it also measures the fastest large matrix product right after its steps. Model FLOPs are
nanoGPT's estimate, 6 N + 12 layers * width * context per token (PaLM, appendix B), which counts attention as if nothing
were masked; MFU is their rate over that of the matrix product, the median of the run.
"""

from __future__ import annotations

import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import record, sides
from benchmarks.options import Options

if TYPE_CHECKING:
    from torch import Tensor

LAYERS, HEADS, WIDTH, CONTEXT, VOCABULARY, ROWS = 6, 6, 384, 256, 65, 12
LR, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.99), 0.1, 1.0
SIDES = ("ours", "nanogpt", "nanogpt-compiled")
GOALS = {"nanogpt": 1.15, "nanogpt-compiled": 1.0}
MFU = 0.8
SQUARE = 2048
"""Rows and columns of the matrix product that gives the peak."""
COLUMNS = ("side", "tok/s", "MFU", "CPU s/step", "peak MB", "ours / it", "goal")


def run(options: Options) -> bool:
    """Interleave the sides, print and save; False when a goal is missed."""
    if options.nanogpt is None:
        raise SystemExit("--nanogpt: expected a folder with nanoGPT's files")
    settings = {
        "nanogpt": str(options.nanogpt.resolve()),
        "threads": options.threads,
        "seed": options.seed,
        "warmup": 2,
        "steps": 2 if options.quick else 8,
    }
    names = [name for name in SIDES if not options.cases or name in options.cases]
    rounds: list[dict[str, dict[str, Any]]] = []
    for n in range(options.default(options.pairs, 15, 1)):
        order = names if n % 2 == 0 else names[::-1]
        rounds.append(
            {name: sides.measure("pretrain_speed", name, settings, options.threads) for name in order}
        )
        shown = ", ".join(f"{name} {rounds[-1][name]['tokens_per_second']:.0f}" for name in names)
        print(f"  round {n + 1}: {shown} tok/s", flush=True)
    peak = statistics.median(one["gemm_flops"] for made in rounds for one in made.values())
    found = {name: _side(name, rounds, peak) for name in names}
    record.table(COLUMNS, [_row(name, one) for name, one in found.items()])
    checks = {f"speed of {name}": one["ratio"] >= GOALS[name] for name, one in found.items() if name in GOALS}
    if "ours" in found:
        checks["MFU"] = found["ours"]["mfu"] >= MFU
        checks["same losses"] = all(_same_losses(made) for made in rounds)
    figures = {"gemm_gflops": peak / 1e9, "flops_per_token": flops_per_token(), "sides": found}
    record.save("pretrain_speed", options, {**figures, "rounds": rounds, "checks": checks})
    return options.quick or all(checks.values())


def flops_per_token() -> int:
    """nanoGPT's estimate: N without the learned positions, the tied output matrix once."""
    parameters = LAYERS * (12 * WIDTH**2 + 2 * WIDTH) + WIDTH + VOCABULARY * WIDTH
    return 6 * parameters + 12 * LAYERS * WIDTH * CONTEXT


def _side(name: str, rounds: list[dict[str, dict[str, Any]]], peak: float) -> dict[str, Any]:
    """Medians over the rounds; the ratio is that of each round, ours over this side."""
    mine = [made[name] for made in rounds]
    speed = statistics.median(one["tokens_per_second"] for one in mine)
    ratios = [
        made["ours"]["tokens_per_second"] / made[name]["tokens_per_second"]
        for made in rounds
        if "ours" in made
    ]
    return {
        "tokens_per_second": speed,
        "mfu": speed * flops_per_token() / peak,
        "cpu_seconds_per_step": statistics.median(one["cpu_seconds"] for one in mine),
        "peak_mb": max(one["peak_mb"] for one in mine),
        "ratio": statistics.median(ratios) if ratios else None,
        "ratios": ratios,
    }


def _row(name: str, one: dict[str, Any]) -> list[Any]:
    ratio = "" if one["ratio"] is None else f"{one['ratio']:.3f}"
    goal = "" if name not in GOALS else f"{GOALS[name]}"
    speed = (one["tokens_per_second"], f"{one['mfu']:.3f}", f"{one['cpu_seconds_per_step']:.3f}")
    return [name, *speed, one["peak_mb"], ratio, goal]


def _same_losses(made: dict[str, dict[str, Any]]) -> bool:
    """The same start and updates on all sides: the weights of ours are laid into nanoGPT's model."""
    first = [one["losses"] for one in made.values()]
    return all(abs(a - b) < 1e-3 for losses in first[1:] for a, b in zip(first[0], losses, strict=True))


def side(which: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One measurement in this process: warm-up steps, timed steps, the matrix product, peak memory."""
    import torch

    torch.set_num_threads(settings["threads"])
    generator = torch.Generator().manual_seed(settings["seed"])
    ids_BT = torch.randint(VOCABULARY, (ROWS, CONTEXT + 1), generator=generator)
    if which == "ours":
        from matura.model.allocator import keep_freed_memory

        keep_freed_memory()
    model = build(settings["seed"])
    step = _ours(model, ids_BT) if which == "ours" else _nanogpt(which, settings, model, ids_BT)
    losses = [step() for _ in range(settings["warmup"])]
    seconds, cpu = [], []
    for _ in range(settings["steps"]):
        began, busy = time.perf_counter(), time.process_time()
        losses.append(step())
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
    return {
        "tokens_per_second": ROWS * CONTEXT / statistics.median(seconds),
        "seconds": seconds,
        "cpu_seconds": statistics.median(cpu),
        "losses": losses,
        "peak_mb": sides.memory_mb("VmHWM"),
        "gemm_flops": _gemm_flops(),
    }


def build(seed: int) -> Any:
    """The model as Matura has it."""
    from matura.model import config as c
    from matura.model.transformer import Transformer

    stack = c.StackConfig(
        layers=LAYERS,
        width=WIDTH,
        attention=c.Attention(heads=HEADS, kv_heads=HEADS, head_width=WIDTH // HEADS),
        mlp=c.GELU(hidden=4 * WIDTH, bias=False),
        norm=c.LayerNorm(bias=False),
        position=c.Learned(),
    )
    return Transformer(c.ModelConfig(vocabulary=VOCABULARY, context=CONTEXT, decoder=stack)).initialize(seed)


@dataclass(frozen=True)
class _Block:
    """Rows of equal length, every token trained."""

    ids_BT: Tensor
    targets_N: Tensor
    weights_N: Tensor

    @property
    def weight(self) -> float:
        return float(len(self.targets_N))

    @property
    def tokens(self) -> int:
        return self.ids_BT.numel()


def _ours(model: Any, ids_BT: Tensor) -> Callable[[], float]:
    """An update through the training loop."""
    import torch

    from matura.core.settings import OptimizerConfig
    from matura.model.logprobs import cross_entropy
    from matura.train import optim
    from matura.train.loop import train

    targets_N = ids_BT[:, 1:].flatten()
    block = _Block(ids_BT[:, :-1].contiguous(), targets_N, torch.ones(len(targets_N)))

    def next_token(model: Any, block: _Block) -> Tensor:
        features_ND = model.features(model.decode(block.ids_BT).flatten(0, 1))
        return cross_entropy(features_ND, model.unembedding, block.targets_N, block.weights_N)

    config = OptimizerConfig(lr=LR, betas=BETAS, weight_decay=DECAY, schedule="constant", warmup=0.0)
    steps = train(
        model,
        itertools.repeat(block),
        next_token,
        optim.build_optimizer(model, config),
        optim.build_schedule(config, 1_000_000),
        steps=1_000_000,
        clip=CLIP,
    )
    return lambda: next(steps).loss


def _nanogpt(which: str, settings: dict[str, Any], ours: Any, ids_BT: Tensor) -> Callable[[], float]:
    """The body of the loop of its train.py, on its model with the weights of ours."""
    import torch

    sys.path.insert(0, settings["nanogpt"])
    theirs = importlib.import_module("model")
    config = theirs.GPTConfig(CONTEXT, VOCABULARY, LAYERS, HEADS, WIDTH, 0.0, False)
    model = theirs.GPT(config)
    model.load_state_dict(_as_nanogpt(ours))
    optimizer = model.configure_optimizers(DECAY, LR, BETAS, "cpu")
    if which == "nanogpt-compiled":
        model = torch.compile(model)
    x_BT, y_BT = ids_BT[:, :-1].contiguous(), ids_BT[:, 1:].contiguous()

    def step() -> float:
        _, loss = model(x_BT, y_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.item())

    return step


def _as_nanogpt(model: Any) -> dict[str, Tensor]:
    """Our weights under nanoGPT's names."""
    import torch

    named = {"wte": model.embed, "wpe": model.decoder.positions, "ln_f": model.decoder.norm}
    for i, block in enumerate(model.decoder.blocks):
        mixer, parts = block.mixers[0], {"attn.c_proj": block.mixers[0].o}
        parts |= {"ln_1": block.norms[0], "ln_2": block.norms[1]}
        parts |= {"mlp.c_fc": block.mlp.up, "mlp.c_proj": block.mlp.down}
        named |= {f"h.{i}.{name}": part for name, part in parts.items()}
        qkv = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        qkv.weight.data = torch.cat([mixer.q.weight, mixer.k.weight, mixer.v.weight]).detach()
        named[f"h.{i}.attn.c_attn"] = qkv
    found = {f"transformer.{name}.weight": part.weight.detach() for name, part in named.items()}
    return {**found, "lm_head.weight": found["transformer.wte.weight"]}


def _gemm_flops() -> float:
    """Of a product of two large square matrices: the best of several, FLOPs per second."""
    import torch

    a, b = torch.randn(SQUARE, SQUARE), torch.randn(SQUARE, SQUARE)
    out, best = torch.empty(SQUARE, SQUARE), float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * SQUARE**3 / best


if __name__ == "__main__":
    print(json.dumps(side(sys.argv[1], json.loads(sys.argv[2]))))
