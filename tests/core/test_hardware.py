"""The numbers that plans are made of."""

import pytest

from matura.core.errors import ConfigError
from matura.core.hardware import DEVICES, matrix_speed, prices


def test_prices_are_examples_until_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATURA_PRICES", raising=False)
    assert prices() == {device.name: device.price for device in DEVICES}
    monkeypatch.setenv("MATURA_PRICES", "h100=2.10, l4=0")
    assert prices()["h100"] == 2.1
    assert prices()["l4"] == 0
    assert prices()["a100"] == prices("")["a100"]


@pytest.mark.parametrize("text", ["h1000=2", "h100", "h100=cheap", "h100=-1", "h100=nan"])
def test_a_wrong_price_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME=DOLLARS"):
        prices(text)


def test_this_machine_multiplies() -> None:
    assert 1e8 < matrix_speed(256, 0.02) < 1e14
