"""What the ranks of `test_parallel.py` do: small training runs whose results any number of ranks must share.

    torchrun --nproc-per-node 2 -m tests.train.rank_cases FOLDER CASE...

Rank 0 leaves `CASE.safetensors` with the final weights and the steps as numbers. A case is `model/grid`, the grid
`kind-tensor-replicas`.
"""

import itertools
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from matura.core.peft_settings import LoraConfig
from matura.core.settings import OptimizerConfig, ParallelConfig
from matura.model import config as c
from matura.model.logprobs import cross_entropy
from matura.model.peft.lora import apply_lora
from matura.model.transformer import Transformer
from matura.train import parallel, sharded
from matura.train.batches import Example, pack
from matura.train.loop import Diverged, Step, train
from matura.train.objectives import next_token
from matura.train.optim import build_optimizer
from matura.train.precision import FP32, Precision, choose_precision
from matura.train.ranks import Ranks
from matura.train.transforms import checkpoint_activations
from tests.model.tiny import build, gpt_stack, llama_config, some_ids

STEPS, ROWS = 2, 8
ADAMW = OptimizerConfig(lr=1e-2, weight_decay=0.1)
MUON = ADAMW.model_copy(update={"kind": "muon"})
CLIP = 0.5


@dataclass(frozen=True)
class Rows:
    """Rows of ids [B, T] with a target and a weight at every token."""

    ids: Tensor
    targets: Tensor
    weights: Tensor

    @property
    def weight(self) -> float:
        return float(self.weights.sum())

    @property
    def tokens(self) -> int:
        return self.ids.numel()


def masked(model: Transformer, rows: Rows) -> Tensor:
    """An encoder says what every token should be."""
    return _loss(model, model.encode(rows.ids), rows)


def translated(model: Transformer, rows: Rows) -> Tensor:
    """A decoder reads the ids backwards, with the encoder's view of them."""
    hidden = model.decode(rows.ids.flip(1), memory_BSD=model.encode(rows.ids))
    return _loss(model, hidden, rows)


def _loss(model: Transformer, hidden: Tensor, rows: Rows) -> Tensor:
    features = model.features(hidden.flatten(0, 1))
    return cross_entropy(features, model.unembedding, rows.targets.flatten(), rows.weights.flatten())


def _relative(**more: Any) -> c.StackConfig:
    return gpt_stack(**more).model_copy(update={"position": c.RelativeBias(buckets=8, max_distance=32)})


def _llama(**attention: Any) -> c.ModelConfig:
    config = llama_config()
    assert config.decoder is not None
    new = config.decoder.attention.model_copy(update=attention)
    return config.model_copy(update={"decoder": config.decoder.model_copy(update={"attention": new})})


def _whole(encoder: c.StackConfig | None, decoder: c.StackConfig | None, **head: Any) -> c.ModelConfig:
    head_config = c.LanguageHead(**head)
    return c.ModelConfig(vocabulary=97, context=64, encoder=encoder, decoder=decoder, head=head_config)


MODELS: dict[str, tuple[c.ModelConfig, Callable[[Any, Any], Tensor]]] = {
    "tied": (llama_config(), next_token),
    "untied": (llama_config(tied=False), next_token),
    "muon": (llama_config(tied=False), next_token),
    "qk_norm": (_llama(qk_norm=c.RMSNorm()), next_token),
    "lora": (llama_config(), next_token),
    "recomputed": (_whole(None, _relative()), next_token),
    "bert": (
        _whole(gpt_stack(causal=False, placement="post"), None, bias=True, transform=c.LayerNorm()),
        masked,
    ),
    "t5": (_whole(_relative(causal=False), _relative(cross=True)), translated),
}


def _examples() -> list[Example]:
    """Ragged rows with ragged masks. Four after each other have 64 tokens: DTensor thinks about every operation again
    for each new shape, which is most of the time here. What two data ranks have differs all the same."""
    draw, made = random.Random(2), list[Example]()
    for _ in range(STEPS * ROWS // 4):
        cuts = [0, *sorted(draw.sample(range(2, 64, 2), 3)), 64]
        for start, end in itertools.pairwise(cuts):
            weights = tuple((draw.random() < 0.5) * (0.5 + len(made) % 3) for _ in range(start, end))
            made.append(Example(tuple(draw.randrange(1, 97) for _ in weights), weights))
    return made


EXAMPLES = _examples()


def batch(name: str, first: int, last: int) -> Any:
    """Rows `first` to `last` of the endless data for a model; weights and lengths differ."""
    if MODELS[name][1] is next_token:
        return pack(EXAMPLES[first:last])
    weights = torch.rand(STEPS * ROWS, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ids, targets = some_ids(STEPS * ROWS, 9), some_ids(STEPS * ROWS, 9, seed=2)
    return Rows(ids[first:last], targets[first:last], weights[first:last])


def batches(name: str, ranks: Ranks, accumulate: int, start: int = 0) -> Iterator[Any]:
    """This rank's part of every step: ROWS rows, dealt to the ranks and to `accumulate` batches of each."""
    size = ROWS // (ranks.data * accumulate)
    for step in range(start, STEPS):
        for i in range(accumulate):
            first = step * ROWS + (ranks.data_rank * accumulate + i) * size
            yield batch(name, first, first + size)


def train_on(
    name: str,
    ranks: Ranks,
    accumulate: int,
    *,
    precision: Precision = FP32,
    folder: Path | None = None,
    until: int = STEPS,
) -> tuple[list[Step], dict[str, Tensor]]:
    """Train a model to step `until`, from the checkpoint in `folder` if there is one; leaves one there."""
    config, objective = MODELS[name]
    model = build(config, dtype=torch.float64 if precision is FP32 else torch.float32)
    if name == "lora":
        apply_lora(model, LoraConfig(rank=2), seed=1)
    if name == "recomputed":
        checkpoint_activations(model)
    ranks = parallel.place(model, ranks, precision)
    settings = MUON if name == "muon" else ADAMW
    optimizer = build_optimizer(model, settings, ranks)
    start = 0
    if folder and (found := sharded.restore(folder, model, optimizer, ranks)) is not None:
        start, position = found
        assert position == {"seen": start}
    steps = []
    for step in train(
        model,
        batches(name, ranks, accumulate, start),
        objective,
        optimizer,
        lambda step: 1e-2 / (step + 1),
        steps=until,
        accumulate=accumulate,
        clip=CLIP,
        start=start,
        ranks=ranks,
        precision=precision,
    ):
        steps.append(step)
        with torch.no_grad():  # a look in between changes nothing
            ranks.forward(model, objective, batch(name, 0, 1))
    if folder:
        sharded.save(folder, until, model, optimizer, {"seen": until}, ranks)
    return steps, parallel.whole_weights(model, ranks)


def grid(text: str) -> ParallelConfig:
    """`kind-tensor-replicas`."""
    kind, tensor, replicas = text.split("-")
    return ParallelConfig.model_validate({"kind": kind, "tensor": int(tensor), "replicas": int(replicas)})


def write(path: Path, steps: list[Step], weights: dict[str, Tensor]) -> None:
    numbers = [[s.loss, s.grad_norm, s.weight, s.tokens] for s in steps]
    save_file({**weights, "steps": torch.tensor(numbers, dtype=torch.float64)}, path)


def run_case(case: str, folder: Path) -> None:
    """`model/grid`; `model/grid/grid` stops one step before the end with a checkpoint and goes on with another
    grid, `alone` is one process without any; `precision:model/grid` trains in that precision."""
    kind, _, rest = case.rpartition(":")
    name, *grids = rest.split("/")
    precision = choose_precision(kind) if kind else FP32  # type: ignore[arg-type]
    path = folder / case.replace("/", "_").replace(":", "_")
    checkpoint = path.with_suffix(".checkpoint") if len(grids) > 1 else None
    if checkpoint:
        checkpoint.mkdir(exist_ok=True)
    for i, one in enumerate(grids):
        if one == "alone":
            break
        until = STEPS if i == len(grids) - 1 else STEPS - 1
        ranks = parallel.arrange(grid(one))
        result = train_on(name, ranks, 2, precision=precision, folder=checkpoint, until=until)
        if ranks.rank == 0:
            write(path.with_suffix(".safetensors"), *result)


def all_stop_when_one_runs_dry(ranks: Ranks) -> None:
    model = build(llama_config())
    ranks = parallel.place(model, ranks)
    rows = [batch("tied", i, i + 1) for i in range(2 + ranks.rank)]
    steps = train(
        model, iter(rows), next_token, build_optimizer(model, ADAMW), lambda step: 1e-2, steps=9, ranks=ranks
    )
    assert [step.step for step in steps] == [1, 2]


def one_bad_batch_stops_all_before_the_update(ranks: Ranks) -> None:
    model = build(llama_config())
    ranks = parallel.place(model, ranks)
    before = parallel.whole_weights(model, ranks)
    bad = pack([Example((1, 2), (0, float("inf")))])
    rows = [bad if ranks.rank == 1 else batch("tied", 0, 1)]
    steps = train(
        model, iter(rows), next_token, build_optimizer(model, ADAMW), lambda step: 1e-2, steps=1, ranks=ranks
    )
    try:
        list(steps)
    except Diverged as error:
        assert "step 1" in str(error)  # noqa: PT017 (without pytest)
    else:
        raise AssertionError("a loss that is not finite was not noticed")
    after = parallel.whole_weights(model, ranks)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


CHECKS = {"stops": all_stop_when_one_runs_dry, "diverges": one_bad_batch_stops_all_before_the_update}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with parallel.start(ParallelConfig(kind="ddp")) as ranks:
        for case in sys.argv[2:]:
            if case in CHECKS:
                CHECKS[case](parallel.arrange(ParallelConfig(kind="fsdp")))
            else:
                run_case(case, folder)
            ranks.barrier()


if __name__ == "__main__":
    main()
