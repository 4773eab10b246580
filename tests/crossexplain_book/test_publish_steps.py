"""Each step that is written for ONNX in another way gives what PyTorch's own step gives."""

import pytest
import torch

from crossexplain_book.publish.steps import decompositions

aten, STEPS = torch.ops.aten, decompositions()
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=GENERATOR)


def alike(step, *arguments, which=None):
    found, expected = STEPS[step](*arguments), step(*arguments)
    found, expected = (found, expected) if which is None else (found[which], expected[which])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [
    ([2, 2], [1, 1], [1, 1]), ([3, 2], [0, 2], [1, 2]), ([4], [0], [1]), ([1, 1], [2, 0], [2, 1]),
])
def test_convolution(stride, padding, dilation):
    given, weight = draw(2, 4, 9, 8), draw(6, 2, 3, 3)
    settings = (stride, padding, dilation, False, [0, 0], 2)
    slope = torch.randn_like(aten.convolution(given, weight, None, *settings))
    alike(aten.convolution_backward.default, slope, given, weight, None, *settings, [True, False, False], which=0)


def test_transposed_convolution():
    given, weight, settings = draw(2, 3, 5, 4), draw(3, 4, 3, 3), ([2, 2], [1, 1], [1, 1], True, [1, 1], 1)
    slope = torch.randn_like(aten.convolution(given, weight, None, *settings))
    alike(aten.convolution_backward.default, slope, given, weight, None, *settings, [True, False, False], which=0)


@pytest.mark.parametrize(("kernel", "stride", "padding", "ceil_mode", "with_padding", "divisor"), [
    ([2, 2], [2, 2], [0, 0], False, True, None), ([3, 3], [2, 2], [1, 1], False, False, None),
    ([3, 2], [2, 1], [1, 1], True, True, None), ([3, 2], [2, 1], [1, 1], True, False, None),
    ([2, 2], [2, 2], [0, 0], False, True, 5), ([2], [], [0], False, True, None),
])
def test_average_pooling(kernel, stride, padding, ceil_mode, with_padding, divisor):
    given, settings = draw(2, 3, 9, 7), (kernel, stride, padding, ceil_mode, with_padding, divisor)
    slope = torch.randn_like(aten.avg_pool2d(given, *settings))
    alike(aten.avg_pool2d_backward.default, slope, given, *settings)


@pytest.mark.parametrize("sides", [[2, 2], [4, 3], [9, 7], [1, 1]])
def test_adaptive_pooling(sides):
    given = draw(2, 3, 9, 7)
    alike(aten._adaptive_avg_pool2d.default, given, sides)
    alike(aten._adaptive_avg_pool2d_backward.default, draw(2, 3, *sides), given)


def test_adaptive_pooling_of_a_video():
    given = draw(2, 3, 5, 6, 7)
    alike(aten._adaptive_avg_pool3d.default, given, [2, 4, 1])
    alike(aten._adaptive_avg_pool3d_backward.default, draw(2, 3, 2, 4, 1), given)


def test_values_put_where_a_view_lies():
    alike(aten.as_strided_scatter.default, draw(4, 6), draw(2, 3), [2, 3], [12, 2], 1)


def test_a_number_less_a_tensor():
    alike(aten.rsub.Scalar, draw(2, 3), 1.0, 2)


def test_max_pooling():
    given, settings = draw(2, 3, 9, 8), ([3, 3], [2, 2], [1, 1], [1, 1], True)
    values, indices = aten.max_pool2d_with_indices(given, *settings)
    alike(aten.max_pool2d_with_indices_backward.default, torch.randn_like(values), given, *settings, indices)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [[4, 3], [12, 15]])
@pytest.mark.parametrize("align", [False, True])
def test_resizing(name, sides, align):
    step = getattr(aten, f"upsample_{name}2d_backward").default
    alike(step, draw(2, 3, *sides), sides, [2, 3, 8, 6], align)
    alike(step, draw(2, 3, *sides), sides, [2, 3, 8, 6], align, sides[0] / 8, sides[1] / 6)


@pytest.mark.parametrize("offset", [0, 1, -1, 2])
def test_diagonal(offset):
    given = draw(2, 4, 5)
    alike(aten.diagonal_scatter.default, given, torch.randn_like(given.diagonal(offset, 1, 2)), offset, 1, 2)


def test_axes_of_one():
    for axes in ([0], [1, -1], [0, 1, 2, 3], [3]):
        alike(aten.squeeze.dims, draw(2, 1, 3, 1), axes)
