"""One thread for every test: tiny models are fastest so, and results do not depend on the machine's cores. The files
that take longest come first, so that at the end of a run in two processes neither waits for the other."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from matura.core.workspace import VARIABLE
from tests.stages.pictures import captioned, pictures

torch.set_num_threads(1)
gc.disable()  # until all tests are read: what is imported stays

TESTS = Path(__file__).parent
LONGEST = (
    "train/test_parallel.py",
    "stages/test_pretrain_ranks.py",
    "test_end_to_end.py",
    "stages/test_finetune.py",
    "stages/test_evaluate.py",
    "stages/test_dpo.py",
    "stages/test_reward.py",
    "stages/test_pretrain.py",
    "stages/test_ppo.py",
    "stages/test_finetune_forgetting.py",
    "model/test_checkpoint_fuzz.py",
    "test_life.py",
)


def _look(file: int | IO[Any]) -> None:
    """Instead of a sync; it refuses what is no open file as well."""
    os.fstat(file if isinstance(file, int) else file.fileno())


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """What is written is there for every process, also after a kill; only a machine that stops needs it on the disk,
    and no test stops one. The thousands of small files take longer to get there than to be made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _look)
        yield


@pytest.fixture(autouse=True)
def no_workspace_of_another_test() -> Iterator[None]:
    """`--workspace` stays in the environment, for the processes that a command starts."""
    os.environ.pop(VARIABLE, None)
    yield
    os.environ.pop(VARIABLE, None)


@pytest.fixture(scope="module")
def captions() -> Iterator[None]:
    """Reports have captions in place of pictures."""
    with pictures(captioned):
        yield


def pytest_collection_finish() -> None:
    """Modules and tests are not looked through again at every collection of what tests leave behind."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
