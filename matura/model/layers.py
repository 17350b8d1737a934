"""Norms and MLPs: one module per kind of value in `model/config.py`.

Eager PyTorch makes one pass over memory per operation. The two operations that every layer repeats, RMSNorm and
the SwiGLU gate, are written as autograd functions with as few passes as they need; the formula stands beside each
and a test says they agree.

Shape suffixes: N any leading dimensions, D width, F hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.model import config as c

FEW_ROWS = 40
"""Up to here reading the weights costs more than the arithmetic (measured at widths of 576 to 3072)."""


def linear(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x W^T + b.

    For the few rows of decoding, a CPU spends its time reading weights. Cut into one block of rows per thread, each
    thread reads its own block in order: 1.2 to 1.5 times faster than the library's split of one product.
    """
    inputs = x_NI.shape[-1]
    rows, threads = x_NI.numel() // inputs, torch.get_num_threads()
    outputs = weight_OI.shape[0]
    if (
        torch.is_grad_enabled()
        or type(x_NI) is not Tensor  # one that is spread over ranks
        or rows > FEW_ROWS
        or outputs % threads
        or not rows
        or x_NI.device.type != "cpu"
    ):
        return F.linear(x_NI, weight_OI, bias_O)
    x_PIN = x_NI.reshape(rows, inputs).T.expand(threads, inputs, rows)
    y_PON = torch.bmm(weight_OI.view(threads, -1, inputs), x_PIN)
    y_NO = y_PON.view(outputs, rows).T.reshape(*x_NI.shape[:-1], outputs)
    return y_NO if bias_O is None else y_NO + bias_O


class Linear(nn.Linear):
    """`nn.Linear` through `linear`."""

    def reset_parameters(self) -> None:
        # Nothing to fill on the meta device, and PyTorch would load its compiler (1 s) to find that out.
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, x_NI: Tensor) -> Tensor:
        return linear(x_NI, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` that costs nothing on the meta device."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


Joint = tuple[Tensor, Tensor | None]
"""Weight [O, I] and bias [O] of several layers under each other."""


def join(layers: Sequence[nn.Module]) -> Joint | None:
    """The rows of all layers in one matrix, of which their weights become views; None if one is no plain layer.

    Weights that already lie under each other, as gate and up do in a memory-mapped file, stay where they are.
    """
    plain: list[Linear] = []
    for layer in layers:
        if not isinstance(layer, Linear) or (layer.bias is None) != (layers[0].bias is None):
            return None
        plain.append(layer)
    sizes = [layer.out_features for layer in plain]
    weight = _stacked([layer.weight.detach() for layer in plain])
    biases = [layer.bias.detach() for layer in plain if layer.bias is not None]
    bias = _stacked(biases) if biases else None
    for layer, block in zip(plain, weight.split(sizes), strict=True):
        layer.weight = nn.Parameter(block, requires_grad=False)
    if bias is not None:
        for layer, part in zip(plain, bias.split(sizes), strict=True):
            layer.bias = nn.Parameter(part, requires_grad=False)
    return weight, bias


def joined(layers: Sequence[nn.Module]) -> Joint | None:
    """The same for training: a differentiable copy, the layers stay as they are.

    None if one is no plain layer: one that LoRA or quantization replaced, whose weight lies elsewhere (as tensor
    parallelism has it), or that somebody looks at through a hook.
    """
    plain: list[Linear] = []
    for layer in layers:
        if type(layer) is not Linear or type(layer.weight) is not nn.Parameter:
            return None
        if (layer.bias is None) != (layers[0].bias is None):
            return None
        if _watched(layer):
            return None
        plain.append(layer)
    biases = tuple(layer.bias for layer in plain if layer.bias is not None)
    return torch.cat(tuple(layer.weight for layer in plain)), torch.cat(biases) if biases else None


def outputs(layers: Sequence[nn.Module], x_NI: Tensor) -> Sequence[Tensor]:
    """What each of several layers makes of one input.

    A kind of layer that saves work where neighbours of its kind read the same says so by a `together(layers, x_NI)`.
    """
    kind = type(layers[0])
    if hasattr(kind, "together") and all(type(layer) is kind and not _watched(layer) for layer in layers):
        made: Sequence[Tensor] = kind.together(layers, x_NI)
        return made
    return [layer(x_NI) for layer in layers]


def _watched(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """`torch.cat(parts)`, without a copy where they are neighbours in memory."""
    first, rows = parts[0], sum(len(part) for part in parts)
    storage, end = first.untyped_storage().data_ptr(), first.storage_offset()
    for part in parts:
        if part.untyped_storage().data_ptr() != storage or part.storage_offset() != end:
            return torch.cat(list(parts))
        if not part.is_contiguous():
            return torch.cat(list(parts))
        end += part.numel()
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def rms_norm_reference(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight (arXiv:1910.07467, equation 4)."""
    return x_ND * torch.rsqrt(x_ND.pow(2).mean(-1, keepdim=True) + eps) * weight_D


class _RMSNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:  # type: ignore[no-untyped-def]
        norm_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True)
        scale_N1 = norm_N1.square_().div_(x_ND.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_ND, weight_D, scale_N1)
        return (x_ND * scale_N1).mul_(weight_D)

    @staticmethod
    def backward(ctx, grad_ND: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        x_ND, weight_D, scale_N1 = ctx.saved_tensors
        need_x, need_weight, _ = ctx.needs_input_grad
        dx_ND = dweight_D = None
        if need_weight:
            dweight_D = (grad_ND * x_ND).mul_(scale_N1).flatten(0, -2).sum(0)
        if need_x:
            dx_ND = grad_ND * weight_D
            dot_N1 = torch.linalg.vecdot(dx_ND, x_ND)[..., None]
            dot_N1.mul_(scale_N1.pow(3)).div_(-x_ND.shape[-1])
            dx_ND.mul_(scale_N1).addcmul_(x_ND, dot_N1)
        return dx_ND, dweight_D, None


class RMSNorm(nn.Module):
    """Root-mean-square norm without mean or bias; computed in at least float32."""

    def __init__(self, width: int, config: c.RMSNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = config.eps

    def forward(self, x_ND: Tensor) -> Tensor:
        if x_ND.dtype in (torch.bfloat16, torch.float16):
            return rms_norm_reference(x_ND.float(), self.weight.float(), self.eps).to(x_ND.dtype)
        if not torch.is_grad_enabled():
            return rms_norm_reference(x_ND, self.weight, self.eps)
        return _RMSNormFunction.apply(x_ND, self.weight, self.eps)


class LayerNorm(nn.LayerNorm):
    """Layer norm with the settings of the config value."""

    def __init__(self, width: int, config: c.LayerNorm) -> None:
        super().__init__(width, eps=config.eps, bias=config.bias)


def swiglu_reference(gate_NF: Tensor, up_NF: Tensor) -> Tensor:
    """silu(gate) * up (arXiv:2002.05202, equation 6)."""
    return F.silu(gate_NF) * up_NF


class _SwiGLUFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_NF: Tensor, up_NF: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gate_NF, up_NF)
        return F.silu(gate_NF).mul_(up_NF)

    @staticmethod
    def backward(ctx, grad_NF: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        gate_NF, up_NF = ctx.saved_tensors
        d_up_NF = F.silu(gate_NF).mul_(grad_NF)
        d_gate_NF = torch.ops.aten.silu_backward(grad_NF * up_NF, gate_NF)
        return d_gate_NF, d_up_NF


class Gated(nn.Module):
    """down(activation(gate(x)) * up(x)): SwiGLU and GeGLU; three projections without biases."""

    def __init__(self, width: int, config: c.SwiGLU | c.GeGLU) -> None:
        super().__init__()
        self.gate = Linear(width, config.hidden, bias=False)
        self.up = Linear(width, config.hidden, bias=False)
        self.down = Linear(config.hidden, width, bias=False)
        self.activation = activation(config)

        self.gate_up: Joint | None = None
        """Rows of gate and up in one matrix (see `fuse_projections`); not a parameter."""

    def forward(self, x_ND: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.activation is F.silu:
            return self.down(_SwiGLUFunction.apply(*outputs((self.gate, self.up), x_ND)))
        if self.gate_up is None or torch.is_grad_enabled():
            gate_NF, up_NF = outputs((self.gate, self.up), x_ND)
        else:
            gate_NF, up_NF = linear(x_ND, *self.gate_up).chunk(2, -1)
        return self.down(self.activation(gate_NF) * up_NF)


class Plain(nn.Module):
    """down(activation(up(x))): GELU, ReLU and SiLU."""

    def __init__(self, width: int, config: c.GELU | c.ReLU | c.SiLU) -> None:
        super().__init__()
        self.up = Linear(width, config.hidden, bias=config.bias)
        self.down = Linear(config.hidden, width, bias=config.bias)
        self.activation = activation(config)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x_ND)))


def activation(config: c.MLP) -> Callable[[Tensor], Tensor]:
    """The function between the projections."""
    match config:
        case c.SwiGLU() | c.SiLU():
            return F.silu
        case c.ReLU():
            return F.relu
        case _:
            return gelu_tanh if config.approximate else F.gelu


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (arXiv:1606.08415, section 2)."""
    return F.gelu(x, approximate="tanh")


def build_norm(width: int, config: c.Norm) -> nn.Module:
    """The module for a norm value."""
    return RMSNorm(width, config) if isinstance(config, c.RMSNorm) else LayerNorm(width, config)


def build_mlp(width: int, config: c.MLP) -> nn.Module:
    """The module for an MLP value."""
    return Gated(width, config) if isinstance(config, c.SwiGLU | c.GeGLU) else Plain(width, config)
