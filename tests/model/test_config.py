"""Settings that make no model are refused, and every setting survives being written."""

from typing import Any

import pytest
import torch

from matura.core.config import parse
from matura.core.errors import ConfigError
from matura.model import config as c
from matura.model.transformer import Transformer
from tests.model.tiny import gpt_stack, llama_config, some_ids

ATTENTION = {"heads": 4, "kv_heads": 2, "head_width": 8}
STACK = {"layers": 2, "width": 32, "attention": ATTENTION, "mlp": {"kind": "swiglu", "hidden": 48}}
DYNAMIC = {"kind": "dynamic", "factor": 2, "original_context": 8}
LLAMA3 = {"kind": "llama3", "factor": 2, "original_context": 8, "low_frequency_factor": 4}
LOCAL = {"window": 4, "layers": [0], "position": {"width": 6}}
MODEL = {"vocabulary": 97, "context": 64, "decoder": STACK}


def stack(**more: Any) -> dict[str, Any]:
    return MODEL | {"decoder": STACK | more}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (stack(attention=ATTENTION | {"kv_heads": 3}), "multiple of kv_heads"),
        (stack(position={"kind": "rope", "width": 10}), "odd or too many"),
        (stack(position={"kind": "rope", "width": 5}), "odd or too many"),
        (stack(attention=ATTENTION | {"head_width": 7}), "odd or too many"),
        (stack(position={"kind": "rope", "width": 2, "scaling": DYNAMIC}), "dynamic"),
        (stack(position={"kind": "rope", "theta": 1.0}), "theta"),
        (stack(position={"kind": "rope", "scaling": LLAMA3}), "high_frequency_factor"),
        (stack(position={"kind": "relative", "buckets": 4, "max_distance": 2}), "max_distance"),
        (stack(position={"kind": "relative", "buckets": 3}, causal=False), "buckets"),
        (stack(local={"window": 4, "layers": [2]}), "2 is no layer"),
        (stack(local=LOCAL, position={"kind": "learned"}), "local.position"),
        (stack(local={"window": 0, "layers": [0]}), "window"),
        (stack(dropout=1.0), "dropout"),
        (stack(width=0), "width"),
        (stack(norm={"kind": "batch"}), "norm"),
        (stack(norm={"kind": "rms", "eps": 0}), "eps"),
        (stack(widht=3), "width"),
        ({"vocabulary": 9, "context": 9}, "encoder, a decoder or both"),
        (MODEL | {"encoder": STACK}, "sees both sides"),
        (MODEL | {"encoder": STACK | {"causal": False, "width": 8}}, "must be equal"),
        (MODEL | {"head": {"kind": "classifier", "labels": []}}, "labels"),
        (MODEL | {"start_id": 97}, "start_id"),
        (stack(cross=True), "encoder"),
        (MODEL | {"encoder": STACK | {"causal": False}}, "cross"),
        (stack(cross=True) | {"encoder": STACK | {"causal": False, "cross": True}}, "encoder.cross"),
        (MODEL | {"decoder": None, "encoder": STACK | {"causal": False, "cross": True}}, "cross"),
        (stack(causal=False), "decoder.causal"),
    ],
)  # fmt: skip
def test_settings_that_make_no_model_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(c.ModelConfig, settings, "model.json")


CONFIGS = {
    "llama": llama_config(),
    "translator": c.ModelConfig(
        vocabulary=97,
        context=64,
        start_id=3,
        encoder=gpt_stack(causal=False),
        decoder=gpt_stack(cross=True, placement="post"),
    ),
    "local": parse(
        c.ModelConfig,
        stack(
            local={"window": 4, "layers": [0], "position": {"theta": 100.0}},
            position={"kind": "rope", "scaling": {"kind": "yarn", "factor": 4, "original_context": 8}},
            attention=ATTENTION | {"qk_norm": {"kind": "rms"}, "softcap": 5.0},
            norm_placement="sandwich",
        )
        | {"head": {"kind": "classifier", "labels": ["a", "b"]}},
        "test",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_survive_being_written(name: str) -> None:
    config = CONFIGS[name]
    assert parse(c.ModelConfig, config.model_dump(mode="json"), "test") == config


@torch.no_grad()
def test_local_layers_see_their_window_with_their_own_positions() -> None:
    """Far tokens reach the last one through full layers only."""

    def change(layers: list[int]) -> bool:
        settings = stack(local={"window": 3, "layers": layers, "position": {"theta": 100.0}})
        model = Transformer(parse(c.ModelConfig, settings, "test")).initialize(0).double().eval()
        a, b = some_ids(1, 12), some_ids(1, 12)
        b[0, 2] += 1
        return not torch.equal(model.decode(a)[0, -1], model.decode(b)[0, -1])

    assert [change([]), change([0]), change([1]), change([0, 1])] == [True, True, True, False]
