import gguf
import numpy as np
import pytest

from matura.core import gguf as container
from matura.core.errors import FormatError
from matura.model.dequantize import SUPPORTED, dequantize


def random_bytes(kind: str, blocks: int, seed: int) -> np.ndarray:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]
    return np.random.default_rng(seed).integers(0, 256, blocks * size, dtype=np.uint8)


@pytest.mark.parametrize("kind", SUPPORTED)
@pytest.mark.parametrize("blocks", [1, 6, 5000])
def test_equals_the_reference_on_random_bits(kind: str, blocks: int) -> None:
    # Random bits hold every pattern, infinities and NaN scales included.
    data = random_bytes(kind, blocks, seed=blocks)
    block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    ours = dequantize(data, kind, (blocks, block))
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(data.reshape(blocks, -1), gguf.GGMLQuantizationType[kind])
    theirs = theirs.astype(np.float32).reshape(blocks, block)
    assert ours.dtype == np.float32
    nan = np.isnan(theirs)
    assert (np.isnan(ours) == nan).all()
    assert (ours.view(np.uint32)[~nan] == theirs.view(np.uint32)[~nan]).all()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16"])
def test_a_quantized_tensor_comes_back_near_the_original(kind: str) -> None:
    weights = np.random.default_rng(0).normal(size=(6, 96)).astype(np.float32)
    data = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    back = dequantize(data.view(np.uint8).reshape(-1), kind, (6, 96))
    assert back.shape == weights.shape
    assert np.abs(back - weights).max() < {"Q4_0": 0.4, "Q4_1": 0.3, "Q5_0": 0.2, "Q5_1": 0.15}.get(
        kind, 0.03
    )


def test_fills_a_slice_in_place() -> None:
    data = random_bytes("Q4_K", 4, seed=1)
    fused = np.zeros((8, 256), np.float32)
    part = dequantize(data, "Q4_K", (4, 256), out=fused[2:6])
    assert np.shares_memory(part, fused)
    np.testing.assert_array_equal(fused[2:6], dequantize(data, "Q4_K", (4, 256)))
    assert not fused[:2].any()
    assert not fused[6:].any()


def test_the_result_is_a_writable_copy() -> None:
    data = np.ones(4, np.float32).view(np.uint8)
    weights = dequantize(data, "F32", (4,))
    weights += 1
    assert data.view(np.float32).tolist() == [1, 1, 1, 1]


def test_refuses_what_it_cannot_read() -> None:
    with pytest.raises(FormatError, match=r"IQ2_XS are not supported; use .*Q4_K"):
        dequantize(np.zeros(74, np.uint8), "IQ2_XS", (256,))
    with pytest.raises(FormatError, match="cannot hold a tensor of shape"):
        dequantize(np.zeros(34, np.uint8), "Q8_0", (64,))
    with pytest.raises(ValueError, match="C-contiguous"):
        dequantize(np.zeros(34, np.uint8), "Q8_0", (32,), out=np.zeros(64, np.float32)[::2])


def test_the_container_knows_the_size_of_every_block() -> None:
    reference = {t.value: (t.name, *sizes) for t, sizes in gguf.GGML_QUANT_SIZES.items()}
    for number, entry in container.TENSOR_TYPES.items():
        assert entry == reference[number]
