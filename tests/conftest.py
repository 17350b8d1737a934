"""One thread for every test: tiny models are fastest so, and results do not depend on the machine's cores. The files
that take longest come first, so that at the end of a run in two processes neither waits for the other."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

TESTS = Path(__file__).parent
LONGEST = (
    "train/test_parallel.py",
    "test_end_to_end.py",
    "test_life.py",
    "stages/test_pretrain.py",
    "stages/test_finetune.py",
    "stages/test_pretrain_ranks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
