"""Many processes train one model: data, fully sharded data and tensor parallelism.

    with start(config.parallel, device) as ranks:      # one process: `ALONE`, and nothing below changes anything
        ranks = place(model, ranks, precision)         # before the optimizer is built
        for step in train(model, batches, ..., ranks=ranks, precision=precision): ...

`torchrun` starts the processes. They form a grid of replicas x shards x tensor ranks (`ParallelConfig`); the sums are
the same as in one process, whatever the grid. docs/scale.md has the arithmetic. Only this module and `parts.py` touch
torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from matura.core.errors import ConfigError
from matura.core.settings import ParallelConfig
from matura.model.block import Attention
from matura.model.layers import Gated, Plain
from matura.model.transformer import Stack
from matura.train.precision import FP32, Precision, check_device
from matura.train.ranks import ALONE, Ranks
from matura.train.transforms import blocks


@dataclass(frozen=True)
class Group:
    """The ranks of one run (see `Ranks`), and the model as they share it once `place` has spread it."""

    config: ParallelConfig
    device: torch.device
    mesh: DeviceMesh
    """Dimensions: replica, shard, tensor."""
    module: nn.Module | None = None
    """What a forward pass has to go through, for data parallelism."""
    partial: tuple[nn.Parameter, ...] = ()
    """Weights that every tensor rank holds whole but uses for its own heads only: their gradients are summed."""

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world(self) -> int:
        return dist.get_world_size()

    @property
    def data(self) -> int:
        return self.world // self.config.tensor

    @property
    def data_rank(self) -> int:
        return self.rank // self.config.tensor

    def barrier(self) -> None:
        self.sum(0.0)

    def sum(self, *values: float) -> tuple[float, ...]:
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)  # through gloo on a GPU too: no wait for what the GPU is doing
        return tuple((total / self.config.tensor).tolist())

    def forward(self, model: nn.Module, compute: Callable[..., Any], *args: Any, last: bool = True) -> Any:
        training = torch.is_grad_enabled()
        if isinstance(self.module, DistributedDataParallel):
            with nullcontext() if last or not training else self.module.no_sync():
                return self.module(compute, *args)
        if not isinstance(self.module, FSDPModule):
            return compute(model, *args)
        self.module.set_requires_all_reduce(last)
        result = self.module(compute, *args)
        if not training:
            self.module.reshard()  # otherwise embedding and head would stay whole until the next backward pass
        return result

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        tensor = self.mesh["tensor"].get_group()
        for parameter in self.partial:
            if parameter.grad is not None:
                dist.all_reduce(_local(parameter.grad), group=tensor)
        # Tensors on different grids cannot be in one operation.
        grids: dict[DeviceMesh | None, list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                grid = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
                grids.setdefault(grid, []).append(parameter)
        norms = [whole(torch.nn.utils.get_total_norm([p.grad for p in ps])) for ps in grids.values()]  # type: ignore[misc]
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        for some in grids.values():
            torch.nn.utils.clip_grads_with_norm_(some, limit, norm)
        return norm.item()

    def deal(self, work: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> Sequence[Tensor]:
        if self.config.kind == "ddp":  # whole on every rank
            copies: list[Tensor] = [
                DTensor.from_local(one, self.mesh["replica"], [Replicate()]) for one in matrices
            ]
            return [_local(one) for one in _dealt(work, copies)]
        layouts: dict[Any, list[int]] = {}
        for i, one in enumerate(matrices):
            layouts.setdefault(one.placements if isinstance(one, DTensor) else None, []).append(i)
        done: dict[int, Tensor] = {}
        for layout, members in layouts.items():
            some = [matrices[i] for i in members]
            made = ALONE.deal(work, some) if layout is None else _dealt(work, some)
            done |= dict(zip(members, made, strict=True))
        return [done[i] for i in range(len(matrices))]


def _dealt(work: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """`work` on matrices that lie on the ranks in the same way: from parts of all to some of them whole, and back."""
    cut = torch.stack(list(matrices))
    assert isinstance(cut, DTensor)
    own = cut.redistribute(placements=[Shard(0)] * cut.device_mesh.ndim)
    done = _as_part(work(own.to_local()), own).redistribute(placements=cut.placements)
    return [_as_part(one, matrices[0]) for one in done.to_local().unbind()]


def _as_part(here: Tensor, like: Tensor) -> DTensor:
    assert isinstance(like, DTensor)
    return DTensor.from_local(
        here, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is cut over the ranks, put together on each of them."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def start(config: ParallelConfig, device: str = "cpu") -> Iterator[Ranks]:
    """Join the processes that torchrun started, for the time of a run; `ALONE` without torchrun, and for a single
    process that shares nothing, so that it goes on from the same checkpoints in both ways.

    On `cuda`, each process takes the GPU of its local rank. Raises ConfigError when the settings and the number of
    processes do not fit.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        if config.kind != "none" or config.tensor > 1:
            raise ConfigError(
                f"parallel: kind={config.kind}, tensor={config.tensor} needs several processes; start them with "
                "`torchrun --nproc-per-node N -m matura ...`"
            )
        yield ALONE
        return
    grid(config, int(os.environ["WORLD_SIZE"]))  # settings that do not fit are found before anyone waits
    if config.kind == "none" and config.tensor == 1:
        yield ALONE
        return
    kind, here = torch.device(device).type, int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        if device != kind:
            raise ConfigError(
                f"device={device}: each process of torchrun takes a GPU of its own; set device=cuda"
            )
        torch.cuda.set_device(check_device(f"{kind}:{here}"))
    dist.init_process_group("gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl")
    yield arrange(config, kind)
    # Not after an error: the other ranks wait in the middle of something, and torchrun ends them.
    dist.destroy_process_group()


def arrange(config: ParallelConfig, kind: str = "cpu") -> Group:
    """The running processes as a grid; `start` does this once, later calls arrange them in other ways."""
    sizes = grid(config, dist.get_world_size())
    mesh = init_device_mesh(kind, sizes, mesh_dim_names=("replica", "shard", "tensor"))
    here = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
    return Group(config, here, mesh)


def grid(config: ParallelConfig, world: int) -> tuple[int, int, int]:
    """Replicas, shards and tensor ranks of `world` processes. Raises ConfigError when they do not divide."""
    if config.kind == "none":
        if world != config.tensor:
            raise ConfigError(
                f"parallel: {world} processes, but kind=none and tensor={config.tensor} use {config.tensor}: set "
                "parallel.kind=ddp or fsdp, or start fewer"
            )
        return 1, 1, world
    fixed = config.replicas * config.tensor
    if world % fixed:
        raise ConfigError(
            f"parallel: {world} processes are no multiple of replicas x tensor = {config.replicas} x {config.tensor}"
        )
    rest = world // fixed
    return (rest, 1, 1) if config.kind == "ddp" else (config.replicas, rest, config.tensor)


class _Forward(nn.Module):
    """Any computation with the model as one forward pass, which is what DDP and FSDP hook into."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[..., Any], *args: Any) -> Any:
        return compute(self.model, *args)


def place(model: nn.Module, ranks: Ranks, precision: Precision = FP32) -> Ranks:
    """Spread the model over the ranks, in place; returns the ranks to train it with.

    Every rank must have built the same weights. Parameters become `DTensor`s where they are cut, so the optimizer is
    built afterwards. `ALONE` changes nothing. The model comes on the CPU, so that a GPU never holds more than its part
    and one block: FSDP moves and cuts block by block.
    """
    if not isinstance(ranks, Group):
        return ranks
    if ranks.config.kind != "fsdp":
        model.to(ranks.device)
    partial = _split_products(model, ranks.mesh["tensor"]) if ranks.config.tensor > 1 else set()
    module: nn.Module | None = None
    if ranks.config.kind == "ddp":
        module = DistributedDataParallel(
            _Forward(model), process_group=ranks.mesh["replica"].get_group(), gradient_as_bucket_view=True
        )
    elif ranks.config.kind == "fsdp":
        module = _shard(model, ranks, precision)
    parameters = tuple(p for name, p in model.named_parameters() if name in partial)
    return replace(ranks, module=module, partial=parameters)


def _shard(model: nn.Module, ranks: Group, precision: Precision) -> nn.Module:
    """FSDP2: one group of weights per block, gathered when it runs; embedding, last norm and head together.

    Weights travel in the dtype of the products, gradients are summed in float32.
    """
    mesh = ranks.mesh["replica", "shard"] if ranks.config.replicas > 1 else ranks.mesh["shard"]
    low = precision.dtype != torch.float32
    policy = MixedPrecisionPolicy(precision.dtype, torch.float32) if low else MixedPrecisionPolicy()
    for block in blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    module = _Forward(model)
    fully_shard(module, mesh=mesh, mp_policy=policy)
    return module


def _split_products(model: nn.Module, mesh: DeviceMesh) -> set[str]:
    """Tensor parallelism: each rank holds some heads and some hidden units (arXiv:1909.08053, section 3).

    q, k, v, gate and up are cut by output, o and down by input, so a part of a block needs one sum over the ranks
    forward and one backward. Returns the names of the weights in between, which see only their rank's heads.
    """
    size, rank = mesh.size(), mesh.get_local_rank()
    everywhere: Placement = Replicate()
    partial: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            _divides(size, f"{name}: heads", module.heads)
            _divides(size, f"{name}: kv_heads", module.kv_heads)
            _cut(module, mesh, ("q", "k", "v"), "o")
            memory = {"memory_BSD": everywhere}
            entry = PrepareModuleInput(
                input_layouts=everywhere,
                desired_input_layouts=everywhere,
                input_kwarg_layouts=memory,
                desired_input_kwarg_layouts=memory,
            )
            parallelize_module(module, mesh, entry)
            module.heads, module.kv_heads = module.heads // size, module.kv_heads // size
            partial |= {
                f"{name}.{n}" for n, _ in module.named_parameters() if n.startswith(("q_norm", "k_norm"))
            }
        elif isinstance(module, Gated | Plain):
            _cut(module, mesh, ("gate", "up") if isinstance(module, Gated) else ("up",), "down")
            parallelize_module(
                module, mesh, PrepareModuleInput(input_layouts=everywhere, desired_input_layouts=everywhere)
            )
        elif isinstance(module, Stack) and module.bias is not None:
            each = module.config.attention.heads // size
            own = slice(rank * each, (rank + 1) * each)
            module.bias.forward = _own_heads(module.bias.forward, own)  # type: ignore
            partial |= {f"{name}.bias.{n}" for n, _ in module.bias.named_parameters()}
    return partial


def _divides(size: int, what: str, count: int) -> None:
    if count % size:
        raise ConfigError(f"parallel.tensor={size} does not divide {what} ({count}); choose a divisor of it")


def _cut(module: nn.Module, mesh: DeviceMesh, by_output: tuple[str, ...], by_input: str) -> None:
    plan: dict[str, Any] = {**dict.fromkeys(by_output, ColwiseParallel()), by_input: RowwiseParallel()}
    for name in plan:
        layer = getattr(module, name)
        if not isinstance(layer, nn.Linear):
            raise ConfigError(
                f"parallel.tensor={mesh.size()}: {type(layer).__name__} layers cannot be cut; use kind=fsdp for LoRA"
            )
        if name != by_input:
            _divides(mesh.size(), f"the width of {name}", layer.out_features)
    parallelize_module(module, mesh, plan)


def _own_heads(bias: Callable[[int, int], Tensor], own: slice) -> Callable[[int, int], Tensor]:
    return lambda T, S: bias(T, S)[:, own]


def whole_weights(model: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """The model's tensors by name, whole and on the CPU of rank 0, for `store.save`; empty on the other ranks."""
    found = {}
    for name, tensor in model.state_dict().items():
        full = whole(tensor.detach())  # all ranks take part, one tensor at a time
        if ranks.rank == 0:
            found[name] = full.cpu()
    return found
