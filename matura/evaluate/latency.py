"""How fast a model answers on this machine: time to the first token, tokens a second, memory, price.

Prompts are random tokens: speed does not depend on what they say. Answers have a fixed length, and nothing ends them.
The first request is a warm-up and not counted.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from matura.core.exam_settings import Latency

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(model: Any, settings: Latency, *, seed: int = 0) -> dict[str, Any]:
    """Figures in milliseconds, tokens a second and bytes; `price_per_million` only where a price is given.

    One request after the other: `first_token_ms` (reading the prompt and choosing a token), `next_token_ms` (every
    token after it), each with its median and its 95th percentile. `batch`: that many requests written together.
    `peak_bytes`: the process's largest resident memory meanwhile, weights included.

    Raises MaturaError when prompt and answer do not fit the model's context.
    """
    from matura.infer import engine
    from matura.infer.sampling import Sampling

    chance = random.Random(seed)
    sampling = Sampling(max_new_tokens=settings.new_tokens, temperature=0)

    def request() -> engine.Request:
        ids = [chance.randrange(model.config.vocabulary) for _ in range(settings.prompt_tokens)]
        return engine.Request(ids, sampling)

    _reset_peak()
    firsts: list[float] = []
    gaps: list[float] = []
    for number in range(settings.requests + 1):
        times = _times(engine.stream(model, [request()]))
        if number:
            firsts.append(times[0])
            gaps += [after - before for before, after in pairwise(times)]
    together = _times(engine.stream(model, [request() for _ in range(settings.batch)], batch=settings.batch))
    reading, writing = settings.prompt_tokens / median(firsts), 1 / median(gaps)
    throughput = settings.batch * settings.new_tokens / together[-1]
    return {
        "requests": settings.requests,
        "prompt_tokens": settings.prompt_tokens,
        "new_tokens": settings.new_tokens,
        "first_token_ms": _spread(firsts),
        "next_token_ms": _spread(gaps),
        "read_tokens_per_s": reading,
        "written_tokens_per_s": writing,
        "batch": {"answers": settings.batch, "written_tokens_per_s": throughput},
        "peak_bytes": peak_bytes(),
        **_prices(settings.price_per_hour, reading, throughput),
    }


def _times(tokens: Any) -> list[float]:
    """Seconds from the call to each token."""
    began = time.perf_counter()
    return [time.perf_counter() - began for _ in tokens]


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": 1000 * median(ordered), "p95": 1000 * high}


def _prices(price_per_hour: float, reading: float, writing: float) -> dict[str, Any]:
    """What a million tokens cost, read one request at a time and written in the batch."""
    if not price_per_hour:
        return {}
    each = {"read": reading, "written": writing}
    return {"price_per_million": {name: price_per_hour / 3600 / speed * 1e6 for name, speed in each.items()}}


def _reset_peak() -> None:
    """Where the system lets us (Linux): what was needed before does not count."""
    with suppress(OSError):
        CLEAR.write_text("5")


def peak_bytes() -> int:
    """Largest resident memory of this process, since the last reset on Linux."""
    with suppress(OSError, StopIteration, ValueError, IndexError):
        line = next(one for one in STATUS.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
