"""Timings add up: checked with a clock and an engine of our own."""

import pytest

from matura.core.errors import MaturaError
from matura.core.exam_settings import Latency
from matura.evaluate import latency
from tests import tiny_models


def test_times_speeds_and_prices_follow_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first token takes 2 s, every further one 0.5 s; the warm-up is ten times slower and does not count."""
    now = [0.0]
    calls = []

    def stream(model, requests, batch=1):
        slow = 1.0 if calls else 10.0
        calls.append(len(requests))
        for number in range(requests[0].sampling.max_new_tokens):
            for _ in requests:
                now[0] += slow * (0.5 if number else 2.0) / len(requests)
                yield number

    monkeypatch.setattr("matura.infer.engine.stream", stream)
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    settings = Latency(requests=3, prompt_tokens=10, new_tokens=5, batch=4, price_per_hour=3.6)
    found = latency.measure(tiny_models.network(), settings)
    assert calls == [1, 1, 1, 1, 4]
    assert found["first_token_ms"] == {"median": pytest.approx(2000), "p95": pytest.approx(2000)}
    assert found["next_token_ms"]["median"] == pytest.approx(500)
    assert (found["read_tokens_per_s"], found["written_tokens_per_s"]) == (pytest.approx(5), pytest.approx(2))
    assert found["batch"] == {"answers": 4, "written_tokens_per_s": pytest.approx(5)}  # 4 x 5 tokens in 4 s
    assert found["price_per_million"] == {"read": pytest.approx(200), "written": pytest.approx(200)}


def test_a_model_is_measured_and_what_does_not_fit_is_told() -> None:
    settings = Latency(requests=3, prompt_tokens=8, new_tokens=4, batch=2)
    found = latency.measure(tiny_models.network(), settings)
    assert found["first_token_ms"]["median"] > 0
    assert found["peak_bytes"] > 10_000_000
    assert "price_per_million" not in found
    with pytest.raises(MaturaError, match="context"):
        latency.measure(tiny_models.network(), Latency(requests=3, prompt_tokens=tiny_models.CONTEXT))
