"""Parts of a corpus through worker processes: Daft on this machine, or on a Ray cluster.

A part is a small mapping of plain values (paths, ranges, settings); the function that works on it reads and writes
files and returns plain values. The engine sees nothing of the text, so the same parts give the same files on every
engine, in whatever order they run.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from matura.core.corpus_settings import Engine
from matura.core.errors import MaturaError

Part = dict[str, Any]


class PartFailed(MaturaError):  # noqa: N818 (named for what happened, as the errors of core are)
    """A worker could not finish a part."""


def run_parts(
    function: str,
    parts: Sequence[Part],
    engine: Engine,
    *,
    advance: Callable[[dict[str, Any]], None] = lambda result: None,
) -> list[dict[str, Any]]:
    """The results of `package.module:callable` for every part, in the order of `parts`.

    `advance` hears of each result as it comes. One part, or one worker, runs in this process. Raises PartFailed, with
    the worker's own message, once all other parts are done: finished work is kept.
    """
    workers = engine.workers or os.cpu_count() or 1
    if engine.kind == "native" and (len(parts) < 2 or workers < 2):
        answers = map(_work, [function] * len(parts), map(json.dumps, parts))
        found = dict(enumerate(_heard(answers, advance)))
    else:
        found = _through_daft(function, parts, engine, min(workers, len(parts)), advance)
    wrong = [result["error"] for _, result in sorted(found.items()) if "error" in result]
    if wrong:
        more = f" (and {len(wrong) - 1} more parts)" if len(wrong) > 1 else ""
        raise PartFailed(f"{wrong[0]}{more}")
    return [found[i]["value"] for i in range(len(parts))]


def _heard(answers: Any, advance: Callable[[dict[str, Any]], None]) -> Any:
    for answer in answers:
        result = json.loads(answer)
        if "value" in result:
            advance(result["value"])
        yield result


def _work(function: str, part: str) -> str:
    """One part, in a worker: its value or its error as JSON, for nothing else is sure to travel."""
    module, _, name = function.partition(":")
    try:
        value = getattr(importlib.import_module(module), name)(json.loads(part))
    except MaturaError as error:
        return json.dumps({"error": str(error)})
    except Exception:  # a bug must name its line here, not in the engine's own words
        return json.dumps({"error": f"{function} failed on {part:.300}:\n{traceback.format_exc(limit=-3)}"})
    return json.dumps({"value": value})


@functools.cache
def _daft(kind: str, address: str | None) -> Any:
    """The module with its runner chosen, which can be done only once in a process."""
    # It reports its use to two hosts unless told not to before it is imported.
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
    # On Ray its bars for its own operators would cover ours, which count parts and documents.
    os.environ["DAFT_PROGRESS_BAR"] = "0"
    import daft

    try:
        if kind == "ray":
            daft.set_runner_ray(address)
        else:
            daft.set_runner_native()
    except Exception as error:  # Daft's own exceptions have no common name
        if daft.runners.get_or_infer_runner_type() != kind:  # else the process uses it already
            raise MaturaError(f"the {kind} engine does not start: {error}") from error
    if kind == "native":
        # In order, a worker that is done waits until the slowest of its neighbours is done too.
        daft.set_execution_config(maintain_order=False)
    return daft


def _through_daft(
    function: str,
    parts: Sequence[Part],
    engine: Engine,
    workers: int,
    advance: Callable[[dict[str, Any]], None],
) -> dict[int, dict[str, Any]]:
    daft = _daft(engine.kind, engine.address)

    @daft.cls(max_concurrency=workers, use_process=engine.kind == "native")
    class Worker:
        def __call__(self, part: str) -> str:
            return _work(function, part)

    # Rows of a dataframe go to the workers one by one: by default a batch holds 131,072 of them.
    frame = daft.from_pydict({"part": list(range(len(parts))), "work": [json.dumps(part) for part in parts]})
    frame = frame.into_partitions(len(parts)) if engine.kind == "ray" else frame.into_batches(1)
    worker: Any = Worker()
    found: dict[int, dict[str, Any]] = {}
    for row in frame.select("part", worker(daft.col("work")).alias("answer")).iter_rows():
        (found[int(row["part"])],) = _heard([row["answer"]], advance)
    return found
