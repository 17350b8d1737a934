"""Tensors that are cut over ranks, on disk: torch's distributed checkpoint in safetensors files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from matura.train.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Stored:
    """A tensor in a distributed checkpoint, put together from its parts."""

    shape: torch.Size
    dtype: torch.dtype


def write_parts(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Write tensors, whole or cut, as safetensors files that say where each part belongs; every rank its own parts.

    Raises OSError as the disk does.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _checkpointing():
        dcp.save(dict(tensors), storage_writer=writer, no_dist=ranks is ALONE)


def stored_parts(folder: Path) -> dict[str, Stored]:
    """What `write_parts` left in a folder, by name."""
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: Stored(info.size, info.properties.dtype) for name, info in found.items()}  # type: ignore[union-attr]


def read_parts(folder: Path, targets: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Fill tensors, whole or cut in any way, from the parts that hold their numbers.

    Raises OSError, or what the reader of safetensors raises.
    """
    reader = HuggingFaceStorageReader(str(folder))
    with _checkpointing():
        dcp.load(dict(targets), storage_reader=reader, no_dist=ranks is ALONE)


@contextmanager
def _checkpointing() -> Iterator[None]:
    """Without the warning that one process is one process, and with the first rank's own error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            yield
        except CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error
