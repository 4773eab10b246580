"""Steps of a backward pass that ONNX does not know, made of those that it knows."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

aten = torch.ops.aten


def decompositions() -> dict:
    """Return how steps that ONNX does not know, most of them backward, are made of those that it knows."""
    return dict(torch.export.default_decompositions()) | {
        aten.convolution_backward.default: _convolution_backward,
        aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
        aten.diagonal_scatter.default: _diagonal_scatter,
        aten._is_all_true.default: lambda given: given.all(),
        aten.rsub.Scalar: lambda given, other, alpha=1: given * -alpha + other,
        aten.squeeze.dims: _squeeze,
        aten.upsample_bilinear2d_backward.default: partial(_resized_backward, aten.upsample_bilinear2d),
        aten.upsample_bicubic2d_backward.default: partial(_resized_backward, aten.upsample_bicubic2d),
        aten.avg_pool2d_backward.default: _average_pool_backward,
        aten._adaptive_avg_pool2d.default: _adaptive_pool,
        aten._adaptive_avg_pool2d_backward.default: partial(_adaptive_pool_backward, 2),
        aten._adaptive_avg_pool3d.default: _adaptive_pool,
        aten._adaptive_avg_pool3d_backward.default: partial(_adaptive_pool_backward, 3),
        aten.as_strided_scatter.default: _strided_scatter,
    }


def _squeeze(given, axes):
    axes = {axis % given.ndim for axis in axes}
    return given.reshape([size for axis, size in enumerate(given.shape) if size != 1 or axis not in axes])


def _convolution_backward(slope, given, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups,
                          mask):
    """Return the gradient at the input of a convolution; the weights are frozen."""
    if not mask[0]:
        return None, None, None
    sides = slope.ndim - 2
    stride, padding, dilation = (list(one) * (sides if len(one) == 1 else 1) for one in (stride, padding, dilation))
    if transposed:
        return aten.convolution(slope, weight, None, stride, padding, dilation, False, [0] * sides, groups), None, None
    left = [given.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1
            - (slope.shape[2 + i] - 1) * stride[i] for i in range(sides)]  # rows at the end that no window has read
    return aten.convolution(slope, weight, None, stride, padding, dilation, True, left, groups), None, None


def _max_pool_backward(slope, given, kernel, stride, padding, dilation, ceil_mode, indices):
    """Return the gradient at the input of a pooling: each value goes to where the maximum stood."""
    flat = given.new_zeros((*given.shape[:-2], given.shape[-2] * given.shape[-1]))
    return flat.scatter_add(-1, indices.flatten(-2), slope.flatten(-2)).reshape(given.shape)


def _diagonal_scatter(given, values, offset=0, first=0, second=1):
    """Put values (..., k) on the diagonal of two axes."""
    turned = given.movedim((first, second), (-2, -1))
    rows, columns = (torch.arange(size) for size in turned.shape[-2:])
    values = aten.constant_pad_nd(values, [max(0, -offset), len(rows) - max(0, -offset) - values.shape[-1]], 0.0)
    return torch.where(columns - rows[:, None] == offset, values.unsqueeze(-1), turned).movedim((-2, -1), (first, second))


def _adaptive_pool(given, sides):
    """Average over windows, as a product with a matrix for each axis."""
    for axis, side in enumerate(sides, given.ndim - len(sides)):
        given = (given.transpose(axis, -1) @ _adaptive(given.shape[axis], side, given).transpose(0, 1)).transpose(axis, -1)
    return given


def _adaptive_pool_backward(sides, slope, given):
    for axis in range(given.ndim - sides, given.ndim):
        matrix = _adaptive(given.shape[axis], slope.shape[axis], given)
        slope = (slope.transpose(axis, -1) @ matrix).transpose(axis, -1)
    return slope


def _strided_scatter(given, values, sizes, strides, offset=0):
    """Put values where a view of a contiguous tensor lies that has these sizes and strides."""
    with _disable_current_modes():
        places = torch.arange(given.numel()).as_strided(sizes, strides, offset or 0).flatten()
    return given.flatten().scatter(0, places, values.expand(sizes).flatten()).reshape(given.shape)


def _average_pool_backward(slope, given, kernel, stride, padding, ceil_mode, with_padding, divisor=None):
    matrices = []
    for axis in (0, 1):
        size, side, pad = given.shape[axis - 2], kernel[axis % len(kernel)], padding[axis % len(padding)]
        step = (stride or kernel)[axis % len(stride or kernel)]
        first = [step * i - pad for i in range(slope.shape[axis - 2])]
        last = [min(start + side, size + pad) for start in first]
        counts = [end - start if with_padding else min(end, size) - max(start, 0) for start, end in zip(first, last)]
        counts = counts if divisor is None else [(divisor, 1)[axis]] * len(first)
        matrices.append(_windows(first, last, counts, size, given))
    return matrices[0].transpose(0, 1) @ slope @ matrices[1]


def _adaptive(size: int, windows: int, like: Tensor) -> Tensor:
    """Return the matrix (windows, size) of adaptive pooling."""
    first, last = [i * size // windows for i in range(windows)], [-(-(i + 1) * size // windows) for i in range(windows)]
    return _windows(first, last, [end - start for start, end in zip(first, last)], size, like)


def _windows(first: Sequence[int], last: Sequence[int], counts: Sequence[int], size: int, like: Tensor) -> Tensor:
    """Return the matrix (windows, size) that sums over each window and divides by its count."""
    rows = [[(start <= place < end) / count for place in range(size)] for start, end, count in zip(first, last, counts)]
    with _disable_current_modes():
        return torch.tensor(rows, dtype=like.dtype)


def _resized_backward(resize, slope, sides, shape, align, row_scale=None, column_scale=None):
    """Return the gradient at a picture that was resized, which is a product with two matrices."""
    with _disable_current_modes():
        rows, columns = (resize(torch.eye(size, dtype=slope.dtype)[None, None], [side, size], align, scale, None)[0, 0]
                         for size, side, scale in zip(shape[-2:], sides, (row_scale, column_scale)))
    return rows.transpose(0, 1) @ slope @ columns
