"""Which device, and whether it computes in bfloat16."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from datasets.stored import Canvas
from utils.distributed import local_rank, world_size
from utils.errors import InputError
from utils.memory import free_device_bytes

_COPIED_AT_ONCE = 2**16  # bytes: a copy of more, unless page-locked, may wait for the GPU
_ALIGNED = 16  # bytes


def select_device(name: str) -> torch.device:
    """`auto` is the first CUDA GPU or else the CPU; of several processes each takes a GPU of its
    own. It is from now on CUDA's default device. Raises InputError for what is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if world_size() > 1 and name.startswith("cuda"):
        name = _own_gpu(name)
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("only cpu, cuda and mps compute")
        torch.empty(1, device=device)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # streams and page-locked memory are then its own
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try --device cpu") \
            from error
    return device


def _own_gpu(name: str) -> str:
    """The GPU of this one of several processes."""
    n_gpus = torch.cuda.device_count()
    if name != "cuda":
        raise InputError(f"--device {name}: of several processes each takes a GPU of its own; give "
                         "--device cuda, and choose GPUs by CUDA_VISIBLE_DEVICES")
    if local_rank() >= n_gpus:
        raise InputError(f"there is no GPU for process {local_rank() + 1} of this machine, it has "
                         f"{n_gpus}; start fewer (--nproc_per_node) or give --device cpu")
    return f"cuda:{local_rank()}"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 natively (else it would only be slower)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.11
            return torch.cpu._is_avx512_bf16_supported()
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def select_autocast(amp: str, device: torch.device) -> Callable[[], AbstractContextManager]:
    """`amp`: `on`, `off`, or `auto` for where the hardware has bfloat16."""
    enabled = amp == "on" or (amp == "auto" and has_bfloat16(device))
    return functools.partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=enabled)


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array of one batch on `device`, without waiting for what the device is doing."""
    tensor = torch.as_tensor(array)
    if device.type == "cuda" and array.nbytes > _COPIED_AT_ONCE:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def upload_together(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """The same for several small ones, in a single copy."""
    parts, start = [], 0
    buffer = np.zeros(sum(array.nbytes + -array.nbytes % _ALIGNED for array in arrays), np.uint8)
    for array in arrays:
        end = start + array.nbytes
        buffer[start:end] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts.append((start, end))
        start = end + -end % _ALIGNED
    uploaded = upload(buffer, device)
    return [uploaded[start:end].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
            for array, (start, end) in zip(arrays, parts, strict=True)]


class Download:
    """A tensor on its way to the host, begun without waiting for the device."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._done: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._done = torch.cuda.Event(blocking=True)  # who waits for it does not spin
            self._done.record()
        else:
            self._host = tensor.cpu()

    def numpy(self) -> np.ndarray:
        """Waits until it is there; in any thread."""
        if self._done is not None:
            self._done.synchronize()
        return self._host.numpy()


@functools.cache
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """A few numbers as float32 on `device`, uploaded once: making a tensor of a list there waits
    for all that the device is doing."""
    return upload(np.array(values, np.float32), device)


def place(data: np.ndarray | Canvas, device: torch.device) -> torch.Tensor | Canvas:
    """An array as a tensor on `device` if it takes at most half of the free memory there, else on
    the CPU. What is not in memory stays where it is."""
    if isinstance(data, Canvas):
        return data
    tensor = torch.from_numpy(data)
    if device.type == "cuda" and data.nbytes > free_device_bytes(device) / 2:
        return tensor
    return tensor.to(device)
