"""What a model is made of, as values: every variant of the transformer is a setting here, never a subclass.

A `ModelConfig` is complete: with the weights beside it nothing else is needed to build the model. It is what
`model.json` in a model artifact holds.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from pydantic import Field, model_validator

from matura.core.config import Config


class LinearScaling(Config):
    """Positions divided by `factor` (arXiv:2306.15595)."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(gt=0)


class DynamicScaling(Config):
    """A base that grows with the sequence once it is longer than `original_context` (NTK-aware scaling).

    Beyond it, a cached token keeps the keys and values that the shorter sequence gave it above the first layer, so
    decoding step by step is close to a pass over the whole, not equal to it.
    """

    kind: Literal["dynamic"] = "dynamic"
    factor: float = Field(gt=0)
    original_context: int = Field(gt=0, description="Longest sequence of pre-training")


class Llama3Scaling(Config):
    """Long wavelengths divided by `factor`, short ones kept, a ramp between (arXiv:2407.21783)."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(gt=0)
    low_frequency_factor: float = Field(1.0, gt=0)
    high_frequency_factor: float = Field(4.0, gt=0)
    original_context: int = Field(gt=0, description="Longest sequence of pre-training")

    @model_validator(mode="after")
    def _ramp(self) -> Llama3Scaling:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError("high_frequency_factor must be greater than low_frequency_factor")
        return self


class YarnScaling(Config):
    """Wavelengths scaled by how often they turn within `original_context`, and sharper scores (arXiv:2309.00071)."""

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(gt=0)
    original_context: int = Field(gt=0, description="Longest sequence of pre-training")
    beta_fast: float = Field(32.0, gt=0, description="Turns above which a wavelength is kept")
    beta_slow: float = Field(1.0, gt=0, description="Turns below which it is divided by the factor")
    attention_factor: float | None = Field(
        None, gt=0, description="Scale of queries and keys; None: 0.1 ln(factor) + 1"
    )
    whole: bool = Field(True, description="Round the ends of the ramp to whole dimensions")


Scaling = Annotated[LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling, Field(discriminator="kind")]


class Rope(Config):
    """Rotary positions (arXiv:2104.09864): queries and keys are rotated by an angle that grows with position."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(10_000.0, gt=1, description="Base of the wavelengths")
    scaling: Scaling | None = Field(None, description="How positions beyond pre-training are reached")
    width: int | None = Field(None, gt=0, description="Leading dimensions of a head that turn; None: all")


class Learned(Config):
    """One trained vector per position, added to the token embedding (GPT-2, BERT)."""

    kind: Literal["learned"] = "learned"


class Sinusoidal(Config):
    """A fixed vector of sines and cosines per position, added to the embedding (arXiv:1706.03762, section 3.5).

    `interleaved` is the paper's order, sine and cosine side by side; `halves` puts all sines first, as Marian does.
    """

    kind: Literal["sinusoidal"] = "sinusoidal"
    order: Literal["interleaved", "halves"] = "interleaved"


class RelativeBias(Config):
    """A trained number per head and bucket of distances, added to the scores of every layer (T5, 2.1)."""

    kind: Literal["relative"] = "relative"
    buckets: int = Field(32, gt=1)
    max_distance: int = Field(128, gt=1, description="Distances from here on share the last bucket")


class Alibi(Config):
    """A penalty that grows with distance, at another slope in every head (arXiv:2108.12409)."""

    kind: Literal["alibi"] = "alibi"


class NoPosition(Config):
    """No positions at all."""

    kind: Literal["none"] = "none"


Position = Annotated[
    Rope | Learned | Sinusoidal | RelativeBias | Alibi | NoPosition, Field(discriminator="kind")
]


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


class GeGLU(Config):
    """down(gelu(gate(x)) * up(x)) (arXiv:2002.05202); `approximate` is the tanh form of Gemma and Flan-T5."""

    kind: Literal["geglu"] = "geglu"
    hidden: int = Field(gt=0)
    approximate: bool = True


class GELU(Config):
    """down(gelu(up(x))); `approximate` is the tanh form that GPT-2 uses."""

    kind: Literal["gelu"] = "gelu"
    hidden: int = Field(gt=0)
    approximate: bool = False
    bias: bool = True


class ReLU(Config):
    """down(max(0, up(x))) (arXiv:1706.03762, equation 2)."""

    kind: Literal["relu"] = "relu"
    hidden: int = Field(gt=0)
    bias: bool = True


class SiLU(Config):
    """down(silu(up(x))), as the Marian project's translators have it (arXiv:1710.05941)."""

    kind: Literal["silu"] = "silu"
    hidden: int = Field(gt=0)
    bias: bool = True


MLP = Annotated[SwiGLU | GeGLU | GELU | ReLU | SiLU, Field(discriminator="kind")]


class Attention(Config):
    """Multi-head attention; fewer `kv_heads` than `heads` is grouped-query attention (arXiv:2305.13245), one
    `kv_heads` is multi-query attention (arXiv:1911.02150)."""

    heads: int = Field(gt=0, le=65_536)
    kv_heads: int = Field(gt=0)
    head_width: int = Field(gt=0, description="Size of one head")
    bias: Literal["none", "qkv", "all"] = Field("none", description="Projections that have a bias")
    qk_norm: Norm | None = Field(None, description="Norm of every query and key head before it is turned")
    scale: float | None = Field(None, gt=0, description="Factor of the scores; None: 1 / sqrt(head_width)")
    softcap: float | None = Field(None, gt=0, description="Scores become softcap * tanh(score / softcap)")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the attention weights dropped in training")

    @model_validator(mode="after")
    def _groups(self) -> Attention:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class Local(Config):
    """Layers in which a token sees only its neighbourhood (sliding window)."""

    window: int = Field(
        gt=0, le=2**31, description="Tokens that are seen, itself included (to each side in an encoder)"
    )
    layers: tuple[int, ...] = Field(description="Which layers, counted from 0")
    position: Rope | None = Field(None, description="Their own rotary positions; None: the stack's")


class StackConfig(Config):
    """A stack of blocks: an encoder (`causal=False`), a decoder, or a decoder with cross-attention.

    `norm_placement`: `pre` norms what a part reads, `post` the sum after it, `sandwich` what it reads and what it
    writes (Gemma 2).
    """

    layers: int = Field(gt=0, le=2_000)
    width: int = Field(gt=0, description="Size of the residual stream")
    attention: Attention
    mlp: MLP
    norm: Norm = RMSNorm()
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    position: Position = Rope()
    local: Local | None = Field(None, description="Layers with a sliding window")
    embedding_norm: Norm | None = Field(
        None, description="Norm of the embeddings before the first block (BERT)"
    )
    segments: int = Field(0, ge=0, description="Kinds of segments with a trained vector each (BERT)")
    causal: bool = True
    cross: bool = Field(False, description="Every block also attends to an encoder's output")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of embeddings and of what every part writes")

    @model_validator(mode="after")
    def _fits(self) -> StackConfig:
        if self.local and (bad := [i for i in self.local.layers if not 0 <= i < self.layers]):
            raise ValueError(f"local.layers: {bad[0]} is no layer; there are {self.layers}, counted from 0")
        rope = [p for p in (self.position, self.local and self.local.position) if isinstance(p, Rope)]
        for width in (p.width or self.attention.head_width for p in rope):
            if width % 2 or width > self.attention.head_width:
                raise ValueError(
                    f"rotary positions turn pairs: {width} of the {self.attention.head_width} dimensions of a "
                    "head is odd or too many"
                )
            if width == 2 and any(isinstance(p.scaling, DynamicScaling) for p in rope):
                raise ValueError("dynamic scaling needs rotary positions of more than two dimensions")
        if self.local and self.local.position and not isinstance(self.position, Rope):
            raise ValueError("local.position: only rotary positions can differ between layers")
        if isinstance(self.position, RelativeBias):
            exact = self.position.buckets // (2 if self.causal else 4)
            if not 0 < exact < self.position.max_distance:
                raise ValueError(
                    f"{self.position.buckets} buckets give {exact} small distances one of their own: there must be "
                    f"at least one, and fewer than max_distance ({self.position.max_distance})"
                )
        return self


class LanguageHead(Config):
    """Scores for every token of the vocabulary."""

    kind: Literal["language"] = "language"
    tied: bool = Field(True, description="The output matrix is the embedding matrix")
    bias: bool = False
    transform: Norm | None = Field(
        None, description="A projection, its activation and this norm first (BERT)"
    )
    activation: Literal["gelu", "gelu_tanh", "relu"] = Field(
        "gelu", description="Between that projection and that norm"
    )
    scale: float = Field(1.0, gt=0, description="Factor of what the head reads (T5: width ** -0.5)")
    softcap: float | None = Field(None, gt=0, description="Scores become softcap * tanh(score / softcap)")


Pool = Literal["first", "last", "mean"]
POOLS: tuple[Pool, ...] = ("mean", "first", "last")
"""What of a text is read: the mean of all tokens, its first or its last one."""


class Classifier(Config):
    """One score per label, read from the first or the last token of a text or from the mean of all; `hidden` is a
    projection before."""

    kind: Literal["classifier"] = "classifier"
    labels: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    pool: Pool = "first"
    hidden: Literal["none", "tanh", "relu"] = "tanh"
    bias: bool = True


class Pooler(Config):
    """tanh of a projection of the first token: BERT's text vector, in checkpoints that have no other head."""

    kind: Literal["pooler"] = "pooler"


class NoHead(Config):
    """Hidden states are the output (sentence encoders)."""

    kind: Literal["none"] = "none"


Head = Annotated[LanguageHead | Classifier | Pooler | NoHead, Field(discriminator="kind")]


class ModelConfig(Config):
    """Encoder only (BERT), decoder only (GPT, Llama), or both (T5)."""

    vocabulary: int = Field(gt=0, le=2**31, description="Number of token ids")
    context: int = Field(gt=0, le=2**31, description="Longest sequence the model was made for, in tokens")
    encoder: StackConfig | None = None
    decoder: StackConfig | None = None
    head: Head = LanguageHead()
    embedding_scale: float = Field(
        1.0, gt=0, description="Factor of the token embeddings (Gemma: sqrt(width))"
    )
    start_id: int | None = Field(
        None, ge=0, description="Token that opens what a decoder with encoder writes"
    )
    family: str = Field("matura", description="Where the weights' arrangement comes from, e.g. llama")

    @model_validator(mode="after")
    def _stacks(self) -> ModelConfig:
        if self.encoder is None and self.decoder is None:
            raise ValueError("a model needs an encoder, a decoder or both")
        if self.encoder and self.decoder and self.encoder.width != self.decoder.width:
            raise ValueError("encoder and decoder share the embedding, so their widths must be equal")
        if self.encoder and self.encoder.causal:
            raise ValueError("an encoder sees both sides: encoder.causal must be false")
        if self.decoder and not self.decoder.causal:
            raise ValueError("a decoder sees nothing later: decoder.causal must be true")
        if self.encoder and self.encoder.cross:
            raise ValueError("an encoder attends to itself only: encoder.cross must be false")
        if self.decoder and self.decoder.cross != (self.encoder is not None):
            raise ValueError("decoder.cross must be true with an encoder, and false without one")
        if self.start_id is not None and self.start_id >= self.vocabulary:
            raise ValueError(f"start_id ({self.start_id}) is outside the vocabulary of {self.vocabulary}")
        return self

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return self.last_stack.width

    def longest(self, stack: StackConfig | None) -> int:
        """Tokens that a stack reads at once: the context where its positions are learned or rotary; `sys.maxsize` where
        only memory ends it."""
        bounded = stack is not None and isinstance(stack.position, Learned | Rope)
        return self.context if bounded else sys.maxsize

    @property
    def last_stack(self) -> StackConfig:
        """The stack whose output the head reads: the decoder, or the only one."""
        stack = self.decoder or self.encoder
        assert stack is not None
        return stack

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the embedding matrix."""
        return isinstance(self.head, LanguageHead) and self.head.tied
