"""To a device and back, without waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.device import Download, constant, upload, upload_together

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_there_and_back(device: str) -> None:
    """Small, and so large that it is page-locked on the way to a GPU."""
    for n in (3, 2**17):
        array = np.random.default_rng(0).random((2, n), np.float32)
        tensor = upload(array, torch.device(device))
        assert tensor.device.type == device
        assert np.array_equal(Download(2 * tensor).numpy(), 2 * array)


@pytest.mark.parametrize("device", DEVICES)
def test_arrays_that_go_together_are_what_they_were(device: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.random((3, 2)).astype(np.float32), np.array([True, False, True]),
              np.arange(5)[::2], np.zeros((0, 4), np.float32), rng.random(1)]
    for array, tensor in zip(arrays, upload_together(arrays, torch.device(device)), strict=True):
        assert tensor.shape == array.shape and tensor.device.type == device
        assert tensor.cpu().numpy().dtype == array.dtype
        assert np.array_equal(tensor.cpu().numpy(), array)


def test_constants_are_made_once() -> None:
    first, second = (constant((0.1, 2.0), torch.device("cpu")) for _ in range(2))
    assert first is second and first.tolist() == torch.tensor([0.1, 2.0]).tolist()
