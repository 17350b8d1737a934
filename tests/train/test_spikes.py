"""Updates that are left out, and when leaving out is given up."""

import json
import math

import pytest

from matura.core.pretrain_settings import Spikes
from matura.train.spikes import SpikeGuard, Unstable


def test_a_norm_far_above_the_recent_ones_is_refused_and_a_lasting_rise_is_not() -> None:
    guard = SpikeGuard(Spikes(factor=5.0, window=8))
    assert all(guard.accepts(2.0, 1.0) for _ in range(8))
    assert not guard.accepts(2.0, 5.1)
    assert guard.accepts(2.0, 4.9)
    assert guard.left_out == 1
    for _ in range(8):
        assert guard.accepts(2.0, 4.0)
    assert guard.accepts(2.0, 19.0)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_what_is_no_number_is_refused_even_at_the_start(loss: float, norm: float) -> None:
    assert not SpikeGuard(Spikes()).accepts(loss, norm)


def test_the_first_updates_are_not_judged_by_a_few() -> None:
    guard = SpikeGuard(Spikes(factor=2.0, window=8))
    assert guard.accepts(5.0, 1.0)
    assert guard.accepts(5.0, 100.0)


def test_too_many_in_a_row_are_unstable_and_a_good_one_between_is_not() -> None:
    guard = SpikeGuard(Spikes(patience=2, window=8))
    for _ in range(3):
        assert not guard.accepts(math.nan, 1.0)
        assert not guard.accepts(math.nan, 1.0)
        assert guard.accepts(1.0, 1.0)
    assert not guard.accepts(math.nan, 1.0)
    assert not guard.accepts(math.nan, 1.0)
    with pytest.raises(Unstable, match="3 updates in a row"):
        guard.accepts(math.nan, 1.0)


def test_a_stored_guard_judges_as_the_other() -> None:
    one, other = SpikeGuard(Spikes(window=8)), SpikeGuard(Spikes(window=8))
    for norm in (1.0, 2.0, 3.0, 1.5, 2.5):
        one.accepts(1.0, norm)
    other.restore(json.loads(json.dumps(one.state())))
    assert other.state() == one.state()
    assert [one.accepts(1.0, 24.0), one.accepts(1.0, 3.0)] == [
        other.accepts(1.0, 24.0),
        other.accepts(1.0, 3.0),
    ]
