"""The Transformer of arXiv:1706.03762, as settings of our core, against PyTorch's own layers."""

import math

import torch
from torch import Tensor, nn

from matura.model import config as c
from matura.model.transformer import Transformer
from tests.model import tiny
from tests.model.families.reference import padding

WIDTH, HEADS, HIDDEN, LAYERS, VOCABULARY = 32, 4, 48, 2, 97
SOURCE_MASK = padding(9, 6)


def original() -> Transformer:
    """Sinusoidal positions, a norm after every part, ReLU, one embedding scaled by sqrt(width)."""

    def stack(*, decoder: bool) -> c.StackConfig:
        return c.StackConfig(
            layers=LAYERS,
            width=WIDTH,
            attention=c.Attention(heads=HEADS, kv_heads=HEADS, head_width=WIDTH // HEADS, bias="all"),
            mlp=c.ReLU(hidden=HIDDEN),
            norm=c.LayerNorm(),
            norm_placement="post",
            position=c.Sinusoidal(order="interleaved"),
            causal=decoder,
            cross=decoder,
        )

    config = c.ModelConfig(
        vocabulary=VOCABULARY,
        context=64,
        encoder=stack(decoder=False),
        decoder=stack(decoder=True),
        embedding_scale=math.sqrt(WIDTH),
        start_id=0,
    )
    model = tiny.build(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases, or they would prove nothing
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


class Reference(nn.Module):
    """The same of PyTorch's layers."""

    def __init__(self) -> None:
        super().__init__()
        settings = {"dim_feedforward": HIDDEN, "dropout": 0.0, "batch_first": True, "dtype": torch.float64}
        self.embed = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, HEADS, **settings), LAYERS, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, HEADS, **settings), LAYERS)

    def forward(self, x_BS: Tensor, y_BT: Tensor, mask_BS: Tensor) -> Tensor:
        memory_BSD = self.encoder(self.embedded(x_BS), src_key_padding_mask=~mask_BS)
        future_TT = torch.ones(y_BT.shape[1], y_BT.shape[1], dtype=torch.bool).triu(1)
        hidden_BTD = self.decoder(
            self.embedded(y_BT), memory_BSD, tgt_mask=future_TT, memory_key_padding_mask=~mask_BS
        )
        return hidden_BTD @ self.embed.weight.T

    def embedded(self, x_BT: Tensor) -> Tensor:
        """Section 3.4 and 3.5, number by number."""
        rows = [
            [(math.cos if i % 2 else math.sin)(p / 10_000 ** ((i - i % 2) / WIDTH)) for i in range(WIDTH)]
            for p in range(x_BT.shape[1])
        ]
        return self.embed(x_BT) * math.sqrt(WIDTH) + torch.tensor(rows, dtype=torch.float64)

    def named(self) -> dict[str, Tensor]:
        """Their parameters (or, after a backward pass, gradients) under our names."""
        found = {"embed.weight": self.embed.weight}
        for side, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, layer in enumerate(stack.layers):
                ours = f"{side}.blocks.{i}"
                attentions = [layer.self_attn, *([layer.multihead_attn] if side == "decoder" else [])]
                for n, attention in enumerate(attentions):
                    found |= {
                        f"{ours}.mixers.{n}.qkv.weight": attention.in_proj_weight,
                        f"{ours}.mixers.{n}.qkv.bias": attention.in_proj_bias,
                        f"{ours}.mixers.{n}.o.weight": attention.out_proj.weight,
                        f"{ours}.mixers.{n}.o.bias": attention.out_proj.bias,
                    }
                parts = {"mlp.up": layer.linear1, "mlp.down": layer.linear2}
                parts |= {f"norms.{n}": getattr(layer, f"norm{n + 1}") for n in range(len(attentions) + 1)}
                for name, part in parts.items():
                    found |= {f"{ours}.{name}.weight": part.weight, f"{ours}.{name}.bias": part.bias}
        return found


def joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values under each other, as PyTorch keeps them."""
    found = {}
    for name, tensor in tensors.items():
        before, _, part = name.rpartition(".")
        if before.endswith(".q"):
            three = [tensors[f"{before[:-1]}{letter}.{part}"] for letter in "qkv"]
            found[f"{before[:-1]}qkv.{part}"] = torch.cat(three)
        elif not before.endswith((".k", ".v")):
            found[name] = tensor
    return found


def test_logits_and_gradients_of_the_original() -> None:
    model, reference = original(), Reference()
    ours, theirs = joined(dict(model.named_parameters())), reference.named()
    assert ours.keys() == theirs.keys()
    assert len(theirs) == sum(1 for _ in reference.parameters())
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    x_BS, y_BT = tiny.some_ids(2, 9), tiny.some_ids(2, 7, seed=2)
    expected = reference(x_BS, y_BT, SOURCE_MASK)
    memory = model.encode(x_BS, mask=SOURCE_MASK)
    found = model.logits(model.decode(y_BT, memory_BSD=memory, memory_mask_BS=SOURCE_MASK))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    gradients = joined({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients.keys() == theirs.keys()
    for name, parameter in theirs.items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-10, atol=1e-10)
