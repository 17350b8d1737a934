"""From a size to a model, and first weights that suit every width."""

import pytest
import torch

from matura.core.pretrain_settings import Shape, amount
from matura.model import config as c
from matura.model.flops import optimal, size, training_flops, training_memory
from matura.model.initialize import initialize
from matura.model.shape import model_config, rate_factor, sizes
from matura.model.transformer import Transformer
from tests.model.tiny import some_ids


@pytest.mark.parametrize("wanted", ["1M", "10M", "135M", "1.3B", "7B"])
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder-decoder"])
def test_a_size_is_met_as_nearly_as_whole_heads_allow(wanted: str, kind: str) -> None:
    config = model_config(Shape.model_validate({"kind": kind, "size": wanted}), 32_000, 512)
    assert size(config).blocks == pytest.approx(amount(wanted), rel=0.16)
    layers, width = sizes(Shape.model_validate({"kind": kind, "size": wanted}))
    assert 25 <= width / layers <= 110


@pytest.mark.parametrize("mlp", ["swiglu", "geglu", "gelu", "relu"])
def test_mlps_of_one_shape_have_equally_many_parameters(mlp: str) -> None:
    plain = size(model_config(Shape(layers=4, width=192, mlp="gelu"), 100, 64)).blocks
    one = size(model_config(Shape.model_validate({"layers": 4, "width": 192, "mlp": mlp}), 100, 64)).blocks
    assert one == pytest.approx(plain, rel=0.01)


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal", "relative", "alibi", "none"])
@pytest.mark.parametrize("kind", ["decoder", "encoder", "encoder-decoder"])
def test_every_shape_runs(kind: str, position: str) -> None:
    values = {"kind": kind, "position": position, "layers": 1, "width": 16, "norm": "layer", "qk_norm": "off"}
    model = initialize(Transformer(model_config(Shape.model_validate(values), 50, 32)), 0)
    ids_BT = some_ids(2, 7, vocabulary=50)
    memory_BSD = model.encode(ids_BT) if kind != "decoder" else None
    hidden_BTD = memory_BSD if kind == "encoder" else model.decode(ids_BT, memory_BSD=memory_BSD)
    assert model.logits(hidden_BTD).shape == (2, 7, 50)


@pytest.mark.parametrize("wanted", ["1", "100", "1K", "2.5K", "10K", "11.5K", "20K"])
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_the_smallest_sizes_have_a_head_that_can_turn(wanted: str, kind: str) -> None:
    stack = model_config(Shape.model_validate({"kind": kind, "size": wanted}), 100, 64).last_stack
    assert stack.attention.head_width % 2 == 0
    assert stack.attention.heads * stack.attention.head_width == stack.width


@pytest.mark.parametrize(
    ("wanted", "shape"),
    [("100K", (1, 96)), ("400K", (2, 128)), ("1M", (3, 160)), ("10M", (6, 384)), ("1.3B", (30, 1920))],
)
def test_sizes_keep_their_shapes(wanted: str, shape: tuple[int, int]) -> None:
    assert sizes(Shape(size=wanted)) == shape


def test_parts_that_do_not_fit_are_said() -> None:
    with pytest.raises(ValueError, match="both `layers` and `width`"):
        Shape(layers=2)
    with pytest.raises(ValueError, match="500K, 10M"):
        Shape(size="large")


def _spread(width: int) -> tuple[float, float]:
    """Root mean square of the hidden states once the zero matrices are filled like the others, and of the logits."""
    model = initialize(Transformer(model_config(Shape(layers=2, width=width), 300, 32)), 0).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o.weight", "down.weight")):
                values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(values * parameter.shape[1] ** -0.5)
        sizes_found = []
        model.decoder.blocks[-1].register_forward_hook(
            lambda module, given, out: sizes_found.append(float(out.detach().square().mean().sqrt()))
        )
        model.decode(some_ids(2, 16, vocabulary=300))
        logits_BTV = model.logits(model.decode(some_ids(1, 4, vocabulary=300)))
    return sizes_found[0], float(logits_BTV.abs().max())


def test_activations_do_not_grow_with_the_width_and_the_first_guess_is_uniform() -> None:
    narrow, wide = _spread(64), _spread(512)
    assert wide[0] == pytest.approx(narrow[0], rel=0.25)
    assert narrow[1] == wide[1] == 0.0


def test_the_control_of_equal_first_weights_grows_with_the_width() -> None:
    found = []
    for width in (64, 512):
        model = Transformer(model_config(Shape(layers=2, width=width), 300, 32)).initialize(0)
        with torch.no_grad():
            found.append(float(model.decoder.blocks[0].mlp.up(torch.ones(width)).square().mean().sqrt()))
    assert found[1] > 2 * found[0]


def test_rates_fall_with_the_root_of_the_width() -> None:
    assert rate_factor(128) == 1.0
    assert rate_factor(512) == 0.5


@pytest.mark.parametrize(("kind", "scored"), [("decoder", 1.0), ("encoder", 0.25)])
def test_flops_of_products_are_those_that_torch_counts(kind: str, scored: float) -> None:
    """An encoder's output layer sees the masked tokens alone."""
    from torch.utils.flop_counter import FlopCounterMode

    shape = Shape.model_validate({"kind": kind, "layers": 3, "width": 64, "qk_norm": "off"})
    config = model_config(shape, 200, 64)
    model = initialize(Transformer(config), 0)
    ids_BT = some_ids(2, 32, vocabulary=200)
    with FlopCounterMode(display=False) as counter:
        hidden_BTD = model.encode(ids_BT) if config.encoder else model.decode(ids_BT)
        model.logits(hidden_BTD[:, : int(32 * scored)]).sum().backward()
    # torch does not see into its kernel: scores and sums of 32 tokens, in a decoder half of them seen
    attention = 12 * 3 * 64 * 32 // (1 if config.encoder else 2)
    counted = counter.get_total_flops() / ids_BT.numel()
    expected = training_flops(config, 32, scored) - attention
    assert expected == pytest.approx(counted, rel=0.004)  # norms have weights too


def test_memory_grows_with_rows_and_is_halved_by_half() -> None:
    config = model_config(Shape(size="10M"), 32_000, 512)
    one, two = training_memory(config, 8, 256), training_memory(config, 16, 256)
    assert one["weights"] == 4 * size(config).all
    assert one["activations"] < two["activations"] < 2 * one["activations"]
    assert training_memory(config, 8, 256, half=True)["activations"] < one["activations"]


def test_recomputed_blocks_keep_what_enters_them() -> None:
    """As docs/scale.md has it, in half precision: about 50 D L bytes a token kept; 2 D L recomputed, and one block."""
    config = model_config(Shape(layers=32, width=4096), 32_000, 512)

    def a_token(recomputed: int) -> float:
        one, two = (
            training_memory(config, rows, 512, half=True, recomputed=recomputed)["activations"]
            for rows in (1, 2)
        )
        return (two - one) / 512 / 4096

    assert a_token(0) == pytest.approx(50 * 32, rel=0.1)
    assert a_token(1) == pytest.approx(2 * 32 + 50, rel=0.1)
    assert a_token(1) < a_token(2) < a_token(0)


def test_the_optimal_point_is_that_of_the_paper() -> None:
    """Chinchilla: 70B parameters, 1.4T tokens for 5.76e23 operations."""
    parameters, tokens = optimal(5.76e23)
    assert parameters == pytest.approx(70e9, rel=0.02)
    assert tokens == pytest.approx(1.4e12, rel=0.02)


def test_encoders_see_both_sides() -> None:
    causal = model_config(Shape(layers=2, width=64), 100, 64)
    both = model_config(Shape(kind="encoder", layers=2, width=64), 100, 64)
    assert isinstance(both.head, c.LanguageHead)
    assert training_flops(both, 64) > training_flops(causal, 64)
