"""The coefficient of the penalty goes where the target is, and comes back from a checkpoint."""

import json
import math

import pytest

from matura.align.controllers import Adaptive, Fixed


def test_the_written_formula() -> None:
    one = Adaptive(0.1, target=2.0, horizon=100)
    one.update(2.2, 10)  # a tenth too much
    assert one.coefficient == pytest.approx(0.1 * (1 + 0.1 * 10 / 100))
    one = Adaptive(0.1, target=2.0, horizon=100)
    one.update(50.0, 10)  # errors count up to a fifth
    assert one.coefficient == pytest.approx(0.1 * (1 + 0.2 * 10 / 100))
    one.update(-1.0, 10)
    assert one.coefficient == pytest.approx(0.1 * 1.02 * 0.98)


def test_it_holds_a_policy_at_the_target() -> None:
    """A policy that goes as far as the penalty lets it: kl = 1 / coefficient."""
    one = Adaptive(0.01, target=4.0, horizon=64)
    for _ in range(200):
        one.update(1 / one.coefficient, 32)
    assert 1 / one.coefficient == pytest.approx(4.0, rel=0.01)


def test_it_never_turns_round_and_ignores_what_is_no_number() -> None:
    one = Adaptive(0.1, target=2.0, horizon=1)
    one.update(-100.0, 1000)
    assert one.coefficient == pytest.approx(0.05)
    one.update(math.nan, 1000)
    assert one.coefficient == pytest.approx(0.05)


@pytest.mark.parametrize("made", [Fixed(0.3), Adaptive(0.3, 2.0, 10)])
def test_a_state_is_json(made: Fixed | Adaptive) -> None:
    made.update(7.123, 3)
    stored = json.loads(json.dumps(made.state()))
    again = Fixed(0.0) if isinstance(made, Fixed) else Adaptive(0.0, 2.0, 10)
    again.restore(stored)
    assert again.coefficient == made.coefficient
    if isinstance(made, Fixed):
        assert made.coefficient == 0.3
