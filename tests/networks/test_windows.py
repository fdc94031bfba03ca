"""The convolution of windows; Windows itself is tested through what uses it, in
test_point_logits.py and test_fpn.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from networks.windows import conv3x3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "size"), [(5, 6), (1, 3), (0, 4)])
def test_conv3x3_is_a_convolution(n: int, size: int, memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 7, size, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 7, 3, 3, generator=generator, dtype=torch.float64)
    seen = []
    for convolution in (conv3x3, F.conv2d):
        inputs = [t.to(memory_format=memory_format, copy=True).requires_grad_()
                  for t in (x, weight)]
        out = convolution(*inputs)
        seen.append((out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)))
    for ours, expected in zip(*seen, strict=True):
        torch.testing.assert_close(ours, expected)


def test_conv3x3_follows_autocast() -> None:
    x, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv3x3(x, weight)
        expected = F.conv2d(x, weight)
    assert out.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, atol=0.1, rtol=0.02)
    out.float().square().sum().backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.abs().sum() > 0
