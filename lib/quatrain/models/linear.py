"""Float32 matrix products of CPU models by oneDNN instead of the BLAS that torch calls by default.

Torch hands float32 `nn.Linear` to MKL, which on AMD processors leaves half of the machine unused: measured on an EPYC
core, 90 against 205 GFLOP/s for (1024 x 256) x (256 x 704), both in true float32. Inputs of few rows stay with MKL,
whose calls cost less. Values differ from MKL's only in the order of summation.
"""

from typing import Any, cast

import torch
from torch.nn import functional

# Below this many rows a call of oneDNN costs more than it saves. (Weights kept in oneDNN's own layout pay from four
# rows on, but only in wide layers: the decoding of a small model became slower.)
_MIN_ROWS = 24


class FastLinear(torch.nn.Linear):
    """`nn.Linear` with the same parameters and state; differentiable once."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return input @ weight.T + bias."""
        weight, bias = self.weight, self.bias
        if not _suits(input, weight):
            return functional.linear(input, weight, bias)
        if torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad):
            return cast(torch.Tensor, _Product.apply(input, weight, bias))  # type: ignore[no-untyped-call]
        return _product(input, weight, bias)


def use_fast_linear(model: torch.nn.Module) -> None:
    """Turn every plain float32 CPU `nn.Linear` inside `model` into a `FastLinear`, in place; parameters stay."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.modules():
        if type(module) is torch.nn.Linear and _is_float32_on_cpu(module.weight):
            module.__class__ = FastLinear


def _is_float32_on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def _suits(input: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        _is_float32_on_cpu(input)
        and _is_float32_on_cpu(weight)
        and input.numel() >= _MIN_ROWS * input.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _product(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return left @ right.T + bias, left [..., K], right [N, K]."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


class _Product(torch.autograd.Function):
    """y = x W^T + b; dx = dy W, dW = dy^T x, db = sum of dy over rows."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        rows_NO = grad_output.reshape(-1, weight.shape[0])
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = _product(rows_NO, weight.t(), None).view(input.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = _product(rows_NO.t(), input.reshape(-1, weight.shape[1]).t(), None)
        if ctx.needs_input_grad[2]:
            grad_bias = rows_NO.sum(dim=0)
        return grad_input, grad_weight, grad_bias
