"""From a size to a model: the rule by which width and depth follow from a number of parameters. No torch.

A block of width D holds about 12 D^2 parameters (attention 4 D^2, MLP 8 D^2). With D = 64 L for L layers, as in the
families from GPT-2 to Llama within a factor of two, a size N gives L = (N / (12 * 64^2))^(1/3). An encoder-decoder
divides its size between the stacks (the decoder's cross-attention makes its block 16 D^2).
"""

from __future__ import annotations

from matura.core.pretrain_settings import Shape, amount
from matura.model import config as c

ASPECT = 64
"""Width for each layer."""
REFERENCE_WIDTH = 128
"""The width at which a learning rate means itself; see `rate_factor`."""


def model_config(shape: Shape, vocabulary: int, context: int, start_id: int | None = None) -> c.ModelConfig:
    """The model of a shape. Raises pydantic's ValidationError for parts that do not fit together."""
    layers, width = sizes(shape)
    stacks = {
        "encoder": _stack(shape, layers, width, causal=False) if shape.kind != "decoder" else None,
        "decoder": _stack(shape, layers, width, cross=shape.kind == "encoder-decoder")
        if shape.kind != "encoder"
        else None,
    }
    head = c.LanguageHead(tied=shape.tied == "on", softcap=shape.softcap)
    return c.ModelConfig(vocabulary=vocabulary, context=context, head=head, start_id=start_id, **stacks)


def sizes(shape: Shape) -> tuple[int, int]:
    """(layers of each stack, width)."""
    if shape.layers is not None and shape.width is not None:
        return shape.layers, shape.width
    block = 28 if shape.kind == "encoder-decoder" else 12  # an encoder block and a decoder block are a pair
    wanted = amount(shape.size)
    layers = max(1, round((wanted / (block * ASPECT**2)) ** (1 / 3)))
    width = (wanted / (block * layers)) ** 0.5
    step = _head_width(shape, round(width))
    return layers, max(step, step * round(width / step))


def _head_width(shape: Shape, width: int) -> int:
    """64, or 32 below a width of 256; of a narrower model its one head is the largest even number that fits, since
    rotary positions turn pairs."""
    return shape.head_width or (64 if width >= 256 else max(2, min(32, width - width % 2)))


def _stack(shape: Shape, layers: int, width: int, causal: bool = True, cross: bool = False) -> c.StackConfig:
    head_width = _head_width(shape, width)
    heads = max(1, width // head_width)
    norm: c.Norm = c.RMSNorm() if shape.norm == "rms" else c.LayerNorm()
    return c.StackConfig(
        layers=layers,
        width=width,
        attention=c.Attention(
            heads=heads,
            kv_heads=shape.kv_heads or heads,
            head_width=head_width,
            qk_norm=norm if shape.qk_norm == "on" else None,
        ),
        mlp=_mlp(shape, width),
        norm=norm,
        position=_position(shape),
        causal=causal,
        cross=cross,
        dropout=shape.dropout,
    )


def _mlp(shape: Shape, width: int) -> c.MLP:
    """Eight D^2 parameters whichever it is: three matrices of 8/3 D, or two of 4 D."""
    gated = max(8, round(8 * width / 3 / 8) * 8)
    match shape.mlp:
        case "swiglu":
            return c.SwiGLU(hidden=gated)
        case "geglu":
            return c.GeGLU(hidden=gated)
        case "relu":
            return c.ReLU(hidden=4 * width, bias=False)
        case _:
            return c.GELU(hidden=4 * width, approximate=True, bias=False)


def _position(shape: Shape) -> c.Position:
    kinds: dict[str, c.Position] = {
        "rope": c.Rope(),
        "learned": c.Learned(),
        "sinusoidal": c.Sinusoidal(),
        "relative": c.RelativeBias(),
        "alibi": c.Alibi(),
        "none": c.NoPosition(),
    }
    return kinds[shape.position]


def rate_factor(width: int) -> float:
    """What the learning rate of width 128 is multiplied by: the root of 128 / width (see `initialize.py`)."""
    return (REFERENCE_WIDTH / width) ** 0.5
