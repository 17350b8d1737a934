"""What decoders share in GGUF files: llama.cpp's names of metadata and tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import rope
from matura.model.families.decoder import block_entries, local_layers
from matura.model.families.family import Gguf, Settings, expect, rounded, same_settings
from matura.model.families.weights import Entry, computed, same

BLOCK = {
    "norms.0": "attn_norm",
    "norms.1": "ffn_norm",
    "mixers.0.q": "attn_q",
    "mixers.0.k": "attn_k",
    "mixers.0.v": "attn_v",
    "mixers.0.o": "attn_output",
    "mixers.0.q_norm": "attn_q_norm",
    "mixers.0.k_norm": "attn_k_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
"""Our part of a block -> theirs."""

Shapes = Mapping[str, tuple[int, ...]]
FromMetadata = Callable[[Settings, Shapes, Sequence[float] | None], c.ModelConfig]
Entries = Callable[[c.ModelConfig], list[Entry]]


def layout(
    architecture: str,
    from_metadata: FromMetadata,
    entries: Entries,
    more: Callable[[c.ModelConfig], dict[str, Any]] = lambda config: {},
) -> Gguf:
    """A family's layout. `more` gives keys beside those that all decoders have, without the architecture.

    Its `to_metadata` raises FormatError when `from_metadata` would make another model of what it wrote.
    """

    def to_metadata(config: c.ModelConfig) -> dict[str, Any]:
        if config.decoder is None:
            raise FormatError(f"GGUF's {architecture} layout holds decoders; this model has none")
        own = _metadata(config) | more(config)
        found = {f"{architecture}.{key}": value for key, value in own.items()}
        written = entries(config)
        shapes = {entry.theirs: (config.vocabulary, config.width) for entry in written}
        factors = next((entry.write(()).tolist() for entry in written if not entry.ours), None)
        same_settings(_comparable(config, config.family), _again(config, found, shapes, factors))
        return found

    def _again(config: c.ModelConfig, *written: Any) -> c.ModelConfig:
        return _comparable(from_metadata(*written), config.family)

    return Gguf(architecture, from_metadata, to_metadata, entries)


def _comparable(config: c.ModelConfig, family: str) -> c.ModelConfig:
    """Without what GGUF never keeps (dropout, the family's name), numbers as exact as float32."""
    return c.ModelConfig.model_validate(_kept(config.model_dump()) | {"family": family})


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: 0.0 if key == "dropout" else _kept(one) for key, one in value.items()}
    return rounded(value) if isinstance(value, float) else value


def _metadata(config: c.ModelConfig) -> dict[str, Any]:
    """The keys that all decoders have."""
    stack, attention = config.last_stack, config.last_stack.attention
    found: dict[str, Any] = {
        "block_count": stack.layers,
        "context_length": config.context,
        "embedding_length": stack.width,
        "feed_forward_length": stack.mlp.hidden,
        "attention.head_count": attention.heads,
        "attention.head_count_kv": attention.kv_heads,
        "attention.key_length": attention.head_width,
        "attention.value_length": attention.head_width,
        "vocab_size": config.vocabulary,
    }
    kind = "layer_norm_epsilon" if isinstance(stack.norm, c.LayerNorm) else "layer_norm_rms_epsilon"
    found[f"attention.{kind}"] = stack.norm.eps
    if isinstance(stack.position, c.Rope):
        turned = rope.to_gguf(stack.position, attention.head_width)
        found |= {f"rope.{key}": value for key, value in turned.items()}
    return found


def attention(metadata: Settings, architecture: str, **more: Any) -> c.Attention:
    """Heads; `more` is what the architecture adds."""
    prefix = f"{architecture}.attention"
    expect(metadata, "GGUF", **{f"{prefix}.causal": True})
    heads = metadata[f"{prefix}.head_count"]
    head_width = metadata.get(f"{prefix}.key_length", metadata[f"{architecture}.embedding_length"] // heads)
    expect(metadata, "GGUF", **{f"{prefix}.value_length": head_width})
    kv_heads = metadata.get(f"{prefix}.head_count_kv", heads)
    return c.Attention(heads=heads, kv_heads=kv_heads, head_width=head_width, **more)


def rms_norm(metadata: Settings, architecture: str) -> c.RMSNorm:
    """RMSNorm with the file's epsilon."""
    return c.RMSNorm(eps=rounded(metadata[f"{architecture}.attention.layer_norm_rms_epsilon"]))


def local(
    metadata: Settings,
    architecture: str,
    *,
    period: int,
    window: int | None = None,
    position: c.Rope | None = None,
) -> c.Local | None:
    """Sliding windows in all layers but every `period`-th; `window` is what a missing key means."""
    prefix = f"{architecture}.attention.sliding_window"
    every = metadata.get(f"{prefix}_pattern", period)
    if not isinstance(every, int) or every < 1:
        raise FormatError(f"{prefix}_pattern={every!r} is not supported; expected a number of layers")
    layers = metadata[f"{architecture}.block_count"]
    return local_layers(
        layers, metadata.get(prefix, window) or None, lambda i: bool((i + 1) % every), position
    )


def local_metadata(stack: c.StackConfig, period: int) -> dict[str, Any]:
    """The keys that `local` reads; `period` is the architecture's own."""
    if stack.local is None:
        return {"attention.sliding_window": 0}
    found = {"attention.sliding_window": stack.local.window}
    every = next((i for i in range(stack.layers) if i not in stack.local.layers), stack.layers) + 1
    if every != period and stack.layers >= min(every, period):
        found["attention.sliding_window_pattern"] = every
    return found


def model(
    metadata: Settings,
    shapes: Shapes,
    architecture: str,
    *,
    family: str | None = None,
    embedding_scale: float = 1.0,
    softcap: float | None = None,
    **stack: Any,
) -> c.ModelConfig:
    """A decoder with a language head, which is tied where the file has no output matrix."""
    return c.ModelConfig(
        vocabulary=shapes["token_embd.weight"][0],
        context=metadata[f"{architecture}.context_length"],
        decoder=c.StackConfig(
            layers=metadata[f"{architecture}.block_count"],
            width=metadata[f"{architecture}.embedding_length"],
            **stack,
        ),
        head=c.LanguageHead(tied="output.weight" not in shapes, softcap=softcap),
        embedding_scale=embedding_scale,
        family=family or architecture,
    )


def entries(config: c.ModelConfig, block: dict[str, str] = BLOCK) -> list[Entry]:
    """Every tensor; `block` maps our parts of a block to theirs."""
    return [*outside(config), *block_entries(config, "blk", block)]


def outside(config: c.ModelConfig) -> list[Entry]:
    """Everything but the blocks."""
    found = [
        same("token_embd.weight", "embed.weight"),
        same("output_norm.weight", "decoder.norm.weight"),
    ]
    if isinstance(config.head, c.LanguageHead) and not config.tied:
        found.append(same("output.weight", "head.weight"))
    stack = config.last_stack
    if isinstance(stack.position, c.Rope) and isinstance(stack.position.scaling, c.Llama3Scaling):
        position, head_width = stack.position, stack.attention.head_width
        found.append(computed("rope_freqs.weight", lambda: rope.slowed(position, head_width)))
    return found
