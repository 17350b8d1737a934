"""Turns the block formats of GGUF files into float32, bit for bit as ggml does.

Every format stores weights in blocks of 32 or 256: small integers, a scale `d`, and with some a minimum `m`.
The K formats have a second level: 6-bit or 4-bit scales and minima for runs of 16 or 32 weights, scaled by
`d` and `m`. Each function below takes the blocks as a structured array [N] and writes weights into `out`,
float32 [N, block].
"""

from collections.abc import Callable

import numpy as np

from matura.core.errors import FormatError

Blocks = np.ndarray  # structured, [N]

_CHUNK = 1 << 17  # weights handled at once: the intermediate arrays stay in the processor's cache


def _column(values: np.ndarray) -> np.ndarray:
    """[N] in half precision -> float32 [N, 1]."""
    return values.astype(np.float32)[:, None]


def _nibbles(q: np.ndarray, run: int) -> np.ndarray:
    """Two 4-bit numbers a byte -> uint8 [N, 2 * bytes]: per `run` bytes low halves, then high ones."""
    n, count = q.shape
    halves = np.empty((n, count // run, 2, run), np.uint8)
    q = q.reshape(n, count // run, run)
    np.bitwise_and(q, 15, out=halves[:, :, 0])
    np.right_shift(q, 4, out=halves[:, :, 1])
    return halves.reshape(n, 2 * count)


def _pairs(q: np.ndarray) -> np.ndarray:
    """Four 2-bit numbers a byte -> uint8 [N, 4 * bytes]: per 32 bytes the lowest pairs, then the next."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    return ((q.reshape(len(q), -1, 1, 32) >> shifts) & 3).reshape(len(q), -1)


def _bits(q: np.ndarray) -> np.ndarray:
    """32 bytes -> uint8 [N, 256] of 0 and 1: first the lowest bit of all bytes, then the next."""
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    return ((q[:, None, :] >> shifts) & 1).reshape(len(q), -1)


def _q8_0(b: Blocks, out: np.ndarray) -> None:
    np.multiply(b["q"], _column(b["d"]), out=out)


def _q4_0(b: Blocks, out: np.ndarray) -> None:
    np.multiply(_nibbles(b["q"], 16).view(np.int8) - np.int8(8), _column(b["d"]), out=out)


def _q4_1(b: Blocks, out: np.ndarray) -> None:
    np.multiply(_nibbles(b["q"], 16), _column(b["d"]), out=out)
    out += _column(b["m"])


def _five_bits(b: Blocks) -> np.ndarray:
    fifth = np.unpackbits(b["h"], axis=1, bitorder="little")
    return _nibbles(b["q"], 16) | (fifth << 4)


def _q5_0(b: Blocks, out: np.ndarray) -> None:
    np.multiply(_five_bits(b).view(np.int8) - np.int8(16), _column(b["d"]), out=out)


def _q5_1(b: Blocks, out: np.ndarray) -> None:
    np.multiply(_five_bits(b), _column(b["d"]), out=out)
    out += _column(b["m"])


def _scaled(q: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None, out: np.ndarray) -> None:
    """q [N, 256] times scale [N, S] minus minimum [N, S], each over runs of 256 / S weights."""
    runs = out.reshape(len(out), scale.shape[1], -1)
    np.multiply(q.reshape(runs.shape), scale[:, :, None], out=runs)
    if minimum is not None:
        runs -= minimum[:, :, None]


def _q2_k(b: Blocks, out: np.ndarray) -> None:
    scale = _column(b["d"]) * (b["s"] & 15).astype(np.float32)
    minimum = _column(b["m"]) * (b["s"] >> 4).astype(np.float32)
    _scaled(_pairs(b["q"]), scale, minimum, out)


def _q3_k(b: Blocks, out: np.ndarray) -> None:
    packed = b["s"]  # 16 scales of 6 bits: the low 4 bits in bytes 0-7, the high 2 in bytes 8-11
    low = _nibbles(packed[:, :8], 8)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = ((packed[:, None, 8:] >> shifts) & 3).reshape(len(b), 16)
    scale = _column(b["d"]) * ((low | (high << 4)).view(np.int8) - np.int8(32)).astype(np.float32)
    q = _pairs(b["q"]).view(np.int8) - ((_bits(b["h"]) ^ 1) << 2).view(np.int8)  # a bit not set means minus 4
    _scaled(q, scale, None, out)


def _scales_and_minima(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """12 bytes -> eight 6-bit scales and eight 6-bit minima, both uint8 [N, 8]."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    minimum = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return scale, minimum


def _with_minima(b: Blocks, q: np.ndarray, out: np.ndarray) -> None:
    scale, minimum = _scales_and_minima(b["s"])
    _scaled(q, _column(b["d"]) * scale.astype(np.float32), _column(b["m"]) * minimum.astype(np.float32), out)


def _q4_k(b: Blocks, out: np.ndarray) -> None:
    _with_minima(b, _nibbles(b["q"], 32), out)


def _q5_k(b: Blocks, out: np.ndarray) -> None:
    _with_minima(b, _nibbles(b["q"], 32) | (_bits(b["h"]) << 4), out)


def _q6_k(b: Blocks, out: np.ndarray) -> None:
    q = _nibbles(b["q"], 64) | (_pairs(b["h"]) << 4)
    _scaled(q.view(np.int8) - np.int8(32), _column(b["d"]) * b["s"].astype(np.float32), None, out)


def _bf16(b: Blocks, out: np.ndarray) -> None:
    np.left_shift(b["q"], 16, out=out.view(np.uint32), dtype=np.uint32)


def _plain(b: Blocks, out: np.ndarray) -> None:
    out[:] = b["q"]


# name -> (weights in a block, layout of a block, function)
_FORMATS: dict[str, tuple[int, np.dtype, Callable[[Blocks, np.ndarray], None]]] = {
    "F32": (1, np.dtype([("q", "<f4", (1,))]), _plain),
    "F16": (1, np.dtype([("q", "<f2", (1,))]), _plain),
    "BF16": (1, np.dtype([("q", "<u2", (1,))]), _bf16),
    "Q8_0": (32, np.dtype([("d", "<f2"), ("q", "i1", 32)]), _q8_0),
    "Q4_0": (32, np.dtype([("d", "<f2"), ("q", "u1", 16)]), _q4_0),
    "Q4_1": (32, np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)]), _q4_1),
    "Q5_0": (32, np.dtype([("d", "<f2"), ("h", "u1", 4), ("q", "u1", 16)]), _q5_0),
    "Q5_1": (32, np.dtype([("d", "<f2"), ("m", "<f2"), ("h", "u1", 4), ("q", "u1", 16)]), _q5_1),
    "Q2_K": (256, np.dtype([("s", "u1", 16), ("q", "u1", 64), ("d", "<f2"), ("m", "<f2")]), _q2_k),
    "Q3_K": (256, np.dtype([("h", "u1", 32), ("q", "u1", 64), ("s", "u1", 12), ("d", "<f2")]), _q3_k),
    "Q4_K": (256, np.dtype([("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("q", "u1", 128)]), _q4_k),
    "Q5_K": (
        256,
        np.dtype([("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)]),
        _q5_k,
    ),
    "Q6_K": (256, np.dtype([("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")]), _q6_k),
}
SUPPORTED = tuple(_FORMATS)


def dequantize(
    data: np.ndarray, kind: str, shape: tuple[int, ...], out: np.ndarray | None = None
) -> np.ndarray:
    """The weights of one tensor, float32 of `shape`.

    `data` is the tensor's bytes (uint8, as `Gguf.data` gives them) and `kind` its type, like "Q4_1". With
    `out`, a C-contiguous float32 array of `shape`, nothing is allocated and `out` is returned: so a part of a
    fused weight can be filled in place. Raises FormatError for a type that is not supported or a wrong size.
    """
    if kind not in _FORMATS:
        raise FormatError(
            f"weights of type {kind} are not supported; use a file with one of: {', '.join(SUPPORTED)}."
        )
    block, layout, write = _FORMATS[kind]
    weights = int(np.prod(shape, dtype=np.int64))
    if data.nbytes * block != weights * layout.itemsize:
        raise FormatError(f"{data.nbytes} bytes of {kind} cannot hold a tensor of shape {shape}.")
    if out is None:
        out = np.empty(shape, np.float32)
    if out.shape != tuple(shape) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"`out` must be C-contiguous float32 of shape {shape}")
    blocks, flat = data.view(layout).reshape(-1), out.reshape(-1, block)
    step = _CHUNK // block
    with np.errstate(invalid="ignore", over="ignore"):  # a NaN in a scale makes NaN weights, as in ggml
        for start in range(0, len(blocks), step):
            write(blocks[start : start + step], flat[start : start + step])
    return out
