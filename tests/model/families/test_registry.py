"""What a model that began here is written as for other programs."""

from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.core.pretrain_settings import Shape
from matura.model import config as c
from matura.model import shape
from matura.model.families import registry


def began_here(**settings: Any) -> c.ModelConfig:
    return shape.model_config(Shape(layers=1, width=32, **settings), vocabulary=99, context=64)


@pytest.mark.parametrize(("settings", "family"), [({}, "qwen3"), ({"qk_norm": "off"}, "llama")])
@pytest.mark.parametrize("tied", ["on", "off"])
def test_a_decoder_is_written_as_the_family_that_has_a_place_for_it(
    settings: dict[str, Any], family: str, tied: str
) -> None:
    config = began_here(tied=tied, **settings)
    home = registry.home(config)
    assert home == config.model_copy(update={"family": family})
    assert registry.by_name(family).from_hf(registry.by_name(family).to_hf(home), ()) == home


def test_a_model_from_elsewhere_keeps_its_family() -> None:
    config = began_here().model_copy(update={"family": "gemma2"})
    assert registry.home(config) is config


def test_what_no_family_has_a_place_for_is_told() -> None:
    with pytest.raises(FormatError, match=r"llama: .*qk_norm=.*; qwen3: .*decoder\.mlp="):
        registry.home(began_here(mlp="relu"))
    with pytest.raises(FormatError, match="only decoders"):
        registry.home(began_here(kind="encoder"))
