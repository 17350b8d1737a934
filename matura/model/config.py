"""What a model is made of, as values: every variant of the transformer is a setting here, never a subclass.

A `ModelConfig` is complete: with the weights beside it nothing else is needed to build the model. It is what
`model.json` in a model artifact holds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from matura.core.config import Config


class Rope(Config):
    """Rotary positions (arXiv:2104.09864): queries and keys are rotated by an angle that grows with position."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(10_000.0, gt=0, description="Base of the wavelengths")


class Learned(Config):
    """One trained vector per position, added to the token embedding (GPT-2, BERT)."""

    kind: Literal["learned"] = "learned"


class NoPosition(Config):
    """No positions at all."""

    kind: Literal["none"] = "none"


Position = Annotated[Rope | Learned | NoPosition, Field(discriminator="kind")]


class RMSNorm(Config):
    """x / rms(x) * weight (arXiv:1910.07467)."""

    kind: Literal["rms"] = "rms"
    eps: float = Field(1e-5, gt=0)


class LayerNorm(Config):
    """(x - mean) / std * weight + bias (arXiv:1607.06450)."""

    kind: Literal["layer"] = "layer"
    eps: float = Field(1e-5, gt=0)
    bias: bool = True


Norm = Annotated[RMSNorm | LayerNorm, Field(discriminator="kind")]


class SwiGLU(Config):
    """down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    kind: Literal["swiglu"] = "swiglu"
    hidden: int = Field(gt=0, description="Width between the two projections")


class GELU(Config):
    """down(gelu(up(x))) with biases; `approximate` is the tanh form that GPT-2 uses."""

    kind: Literal["gelu"] = "gelu"
    hidden: int = Field(gt=0)
    approximate: bool = False


MLP = Annotated[SwiGLU | GELU, Field(discriminator="kind")]


class Attention(Config):
    """Multi-head attention; fewer `kv_heads` than `heads` is grouped-query attention (arXiv:2305.13245)."""

    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_width: int = Field(gt=0, description="Size of one head")
    bias: bool = Field(False, description="Biases on the four projections")

    @model_validator(mode="after")
    def _groups(self) -> Attention:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class StackConfig(Config):
    """A stack of equal blocks: an encoder (`causal=False`), a decoder, or a decoder with cross-attention."""

    layers: int = Field(gt=0)
    width: int = Field(gt=0, description="Size of the residual stream")
    attention: Attention
    mlp: MLP
    norm: Norm = RMSNorm()
    norm_placement: Literal["pre", "post"] = "pre"
    position: Position = Rope()
    causal: bool = True
    cross: bool = Field(False, description="Every block also attends to an encoder's output")
    dropout: float = Field(0.0, ge=0, lt=1)


class ModelConfig(Config):
    """Encoder only (BERT), decoder only (GPT, Llama), or both (T5)."""

    vocabulary: int = Field(gt=0, description="Number of token ids")
    context: int = Field(gt=0, description="Longest sequence the model was made for, in tokens")
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    tied: bool = Field(True, description="The output layer is the embedding matrix")
    family: str = Field("matura", description="Where the weights' arrangement comes from, e.g. llama")

    @model_validator(mode="after")
    def _stacks(self) -> ModelConfig:
        if self.encoder is None and self.decoder is None:
            raise ValueError("a model needs an encoder, a decoder or both")
        if self.encoder and self.decoder and self.encoder.width != self.decoder.width:
            raise ValueError("encoder and decoder share the embedding, so their widths must be equal")
        return self

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        stack = self.decoder or self.encoder
        assert stack is not None
        return stack.width


def count_parameters(config: ModelConfig) -> tuple[int, int]:
    """(all parameters, parameters used in matrix products per token: the blocks and the output layer).

    The second is what FLOP estimates need: a forward pass costs about 2 FLOPs per token for each of them.
    """
    blocks = sum(_stack_parameters(stack) for stack in (config.encoder, config.decoder) if stack)
    table = config.vocabulary * config.width
    positions = sum(
        config.context * stack.width
        for stack in (config.encoder, config.decoder)
        if stack and isinstance(stack.position, Learned)
    )
    return blocks + table * (1 if config.tied else 2) + positions, blocks + table


def _stack_parameters(stack: StackConfig) -> int:
    attention = stack.attention
    inner = attention.heads * attention.head_width
    inner_kv = attention.kv_heads * attention.head_width
    one = 2 * stack.width * inner + 2 * stack.width * inner_kv
    if attention.bias:
        one += inner + 2 * inner_kv + stack.width
    matrices = 3 if isinstance(stack.mlp, SwiGLU) else 2
    mlp = matrices * stack.width * stack.mlp.hidden
    if isinstance(stack.mlp, GELU):
        mlp += stack.mlp.hidden + stack.width
    norm = stack.width * (2 if isinstance(stack.norm, LayerNorm) and stack.norm.bias else 1)
    mixers = 2 if stack.cross else 1
    final = norm if stack.norm_placement == "pre" else 0
    return stack.layers * (mixers * one + mlp + (mixers + 1) * norm) + final
