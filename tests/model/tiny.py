"""Tiny random models for tests: small enough to run in float64, shaped like the real ones."""

import torch

from matura.model import config as c
from matura.model.transformer import Transformer


def llama_config(
    *, layers: int = 2, kv_heads: int = 2, tied: bool = True, vocabulary: int = 97
) -> c.ModelConfig:
    """Grouped-query attention, RoPE, SwiGLU, RMSNorm."""
    decoder = c.StackConfig(
        layers=layers,
        width=32,
        attention=c.Attention(heads=4, kv_heads=kv_heads, head_width=8),
        mlp=c.SwiGLU(hidden=48),
        norm=c.RMSNorm(eps=1e-5),
        position=c.Rope(theta=10_000.0),
    )
    return c.ModelConfig(
        vocabulary=vocabulary, context=128, decoder=decoder, head=c.LanguageHead(tied=tied), family="llama"
    )


def gpt_stack(*, causal: bool = True, cross: bool = False, placement: str = "pre") -> c.StackConfig:
    """LayerNorm with biases, learned positions, GELU."""
    return c.StackConfig(
        layers=2,
        width=32,
        attention=c.Attention(heads=4, kv_heads=4, head_width=8, bias="all"),
        mlp=c.GELU(hidden=64),
        norm=c.LayerNorm(),
        norm_placement=placement,
        position=c.Learned(),
        causal=causal,
        cross=cross,
    )


def build(
    config: c.ModelConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64, scale: float = 4.0
) -> Transformer:
    """Random weights large enough that every part matters."""
    model = Transformer(config).initialize(seed).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


def some_ids(*shape: int, vocabulary: int = 97, seed: int = 1) -> torch.Tensor:
    """Random token ids of the given shape."""
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(seed))
