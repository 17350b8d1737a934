"""Many texts to ids on all cores: worker processes, each with a tokenizer of its own.

The tokenizers library has threads of its own, but a good part of the work (a list of numbers for each text, its memory
freed again) is done under Python's lock. Processes share nothing, and send back flat arrays.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matura.core.errors import MaturaError
from matura.tokenizer import tokenizer as tokenizers
from matura.tokenizer.tokenizer import Tokenizer

Arrays = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]
"""The ids of some texts end to end, and how many tokens each has."""

AHEAD = 3  # groups of texts in the hands of each worker: one at work, others so that it never waits


@dataclass(frozen=True, slots=True)
class Around:
    """Ids that stand before and after the ids of every text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def encode(tokenizer: Tokenizer, texts: Sequence[str], around: Around) -> Arrays:
    """Ids of the texts, each between `around`."""
    before, after = list(around.before), list(around.after)
    encoded = [before + ids + after for ids in tokenizer.encode_batch(texts)]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return np.fromiter(chain.from_iterable(encoded), np.uint32, int(lengths.sum())), lengths


Encode = Callable[[Iterable[Sequence[str]]], Iterator[Arrays]]
"""Groups of texts -> their ids, in the same order, while the groups come."""


@contextmanager
def encoders(folder: Path, around: Around, workers: int) -> Iterator[Encode]:
    """A function that encodes with the tokenizer of `folder`, in `workers` processes (1: in this one).

    The result does not depend on their number. Raises MaturaError when a worker dies.
    """
    if workers == 1:
        tokenizer = tokenizers.load(folder)
        yield lambda groups: (encode(tokenizer, texts, around) for texts in groups)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start, initargs=(str(folder), around)
    ) as pool:
        try:
            yield lambda groups: _in_order(pool, groups, AHEAD * workers)
        except BrokenProcessPool as error:
            raise MaturaError(
                "a process that encodes ended by itself, most likely for lack of memory. What was finished is kept: "
                f"run it again with fewer than {workers} workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, groups: Iterable[Sequence[str]], ahead: int) -> Iterator[Arrays]:
    waiting: deque[Future[Arrays]] = deque()
    for texts in groups:
        waiting.append(pool.submit(_work, list(texts)))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_worker: dict[str, Any] = {}


def _start(folder: str, around: Around) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process, or they fight for the cores
    _worker.update(tokenizer=tokenizers.load(folder), around=around)


def _work(texts: list[str]) -> Arrays:
    return encode(_worker["tokenizer"], texts, _worker["around"])
