"""nanoGPT's side of `learning`: its own train.py runs as it is, from a folder that holds its files.

`python -m benchmarks.learning_nanogpt CASE SETTINGS` (JSON) prints one line of JSON. Added from outside, through hooks
that PyTorch offers: the end by the clock, the exact validation, the seed (train.py has one fixed), and a learning rate
that falls until the end of the budget: warm-up and decay of train.py count updates, so `lr_decay_iters` is set after
every update to the number that this run is going to reach, and `warmup_iters` to at most a tenth of it. No side knows
its speed better.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.learning_measure import Budget, Watch, parts

CASES = {
    "readme": "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128",
    "10m": "--batch_size=12",
    "10m-batch64": "--batch_size=64",
}
"""What is given to train.py after config/train_shakespeare_char.py: the README's CPU configuration, and the character
configuration (10.65M parameters). Dropout is 0 everywhere, as the README advises for a short run on a CPU."""
ALWAYS = "--device=cpu --compile=False --dtype=float32 --dropout=0.0 --eval_iters=1 --log_interval=1000000"
FILES = ("train.py", "model.py", "configurator.py", "config", "data/shakespeare_char/prepare.py")


class _OverError(Exception):
    """The budget is spent."""


def main(case: str, settings: dict[str, Any]) -> str:
    """Train in a folder of its own; returns the result as JSON."""
    torch.set_num_threads(settings["threads"])
    source = Path(settings["nanogpt"]).resolve()
    digest = hashlib.sha256()
    for name in FILES[:2]:
        digest.update((source / name).read_bytes())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        train, validation = _prepare(source, Path(folder), settings)
        arguments = ["config/train_shakespeare_char.py", *ALWAYS.split(), "--eval_interval=1000000000"]
        sys.argv = ["train.py", *arguments, *CASES[case].split(), "--max_iters=1000000000"]
        run = _Run(settings, train, validation)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(_OverError):
            run.start(source)
        assert run.watch is not None
        tokens = run.steps * run.namespace["batch_size"] * run.namespace["block_size"]
        about = {"side": f"nanogpt-{case}", "seed": settings["seed"], "steps": run.steps, "tokens": tokens}
        return run.watch.result(**about, arguments=sys.argv[1:], sha256=digest.hexdigest())


def _prepare(source: Path, folder: Path, settings: dict[str, Any]) -> tuple[str, str]:
    """Its own prepare.py makes train.bin and val.bin of the text; (training text, validation text)."""
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    shutil.copy(source / FILES[-1], data)
    shutil.copy(source / "configurator.py", folder)
    shutil.copytree(source / "config", folder / "config")
    train, validation = parts(settings["text"])
    (data / "input.txt").write_text(train + validation, encoding="utf-8")
    words = [sys.executable, str(data / "prepare.py")]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    return train, validation[: settings["validation"]]


class _Run:
    """train.py with a step hook on its optimizer."""

    def __init__(self, settings: dict[str, Any], train: str, validation: str) -> None:
        self.settings, self.train, self.validation = settings, train, validation
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.watch: Watch | None = None
        self.steps = 0

    def start(self, source: Path) -> None:
        """Run it until the budget is spent."""
        sys.path.insert(0, str(source))
        model: Any = __import__("model")
        seeded, configure = torch.manual_seed, model.GPT.configure_optimizers
        torch.manual_seed = lambda seed: seeded(seed + self.settings["seed"])

        def watched(gpt: Any, *arguments: Any) -> torch.optim.Optimizer:
            optimizer: torch.optim.Optimizer = configure(gpt, *arguments)
            optimizer.register_step_post_hook(lambda *_: self._updated())
            self._begin(gpt)
            return optimizer

        model.GPT.configure_optimizers = watched
        exec(compile((source / "train.py").read_text("utf-8"), "train.py", "exec"), self.namespace)

    def _begin(self, gpt: nn.Module) -> None:
        """The clock starts with the training loop."""
        import pickle

        with open("data/shakespeare_char/meta.pkl", "rb") as file:
            number = pickle.load(file)["stoi"]
        ids = [number[char] for char in self.validation]
        before = [number[char] for char in self.train[-self.namespace["block_size"] :]]
        self.warmup = self.namespace["warmup_iters"]
        self.watch = Watch(
            model=gpt,
            logits=lambda x_BT: gpt(x_BT, x_BT)[0],
            ids=ids,
            before=before,
            context=self.namespace["block_size"],
            bytes_of=lambda n: len(self.validation[:n].encode()),
            budget=Budget(self.settings["seconds"]),
        )
        self.watch.budget.go()

    def _updated(self) -> None:
        assert self.watch is not None
        self.steps += 1
        reached = max(self.steps + 1, round(self.steps / self.watch.budget.progress))
        self.namespace["warmup_iters"] = min(self.warmup, reached // 10)
        self.namespace["lr_decay_iters"] = reached
        if self.watch.look():
            raise _OverError


if __name__ == "__main__":
    print(main(sys.argv[1], json.loads(sys.argv[2])))
