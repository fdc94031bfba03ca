"""How far a step is from what its machine can do: counted work against measured rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import synchronise

_MATRIX_SIZE = {"cuda": 8192, "cpu": 1536}
_COPIED_BYTES = {"cuda": 2**31, "cpu": 2**28}


class BytesCounter(TorchDispatchMode):
    """Bytes of all tensors that operations read and write. Views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if not function.is_view and not str(function).startswith("prim."):
            self.total += sum(_bytes_of(leaf) for leaf in tree_leaves((args, kwargs, result)))
        return result


def _bytes_of(leaf: object) -> int:
    """What a tensor takes; one that repeats its values (`expand`) has each only once."""
    if not isinstance(leaf, Tensor):
        return 0
    sizes = [n for n, stride in zip(leaf.shape, leaf.stride(), strict=True) if stride or n == 0]
    return int(torch.Size(sizes).numel()) * leaf.element_size()


def _of_convolution_backward(gradient: torch.Size, x: torch.Size, weight: torch.Size, *args: object,
                             **_: object) -> int:
    """Of the gradients of input and weights (`output_mask`), each as much as the convolution
    itself. PyTorch's own count takes a grouped convolution's for a full one."""
    *_, output_mask = (arg for arg in args if isinstance(arg, list | tuple))
    each = 2 * gradient.numel() * weight[1:].numel()
    return each * sum(map(bool, output_mask[:2]))


def count(step: Callable[[], None]) -> tuple[int, int]:
    """Floating-point operations of a step's convolutions and matrix products (a multiplication and
    an addition are two), and the bytes it moves if every operation reads its operands from memory
    and writes its results there. That is an upper bound: caches and compiled kernels keep some."""
    counted = {torch.ops.aten.convolution_backward: _of_convolution_backward}
    with (FlopCounterMode(display=False, custom_mapping=counted) as flops,
          BytesCounter() as moved):
        step()
    return flops.get_total_flops(), moved.total


def machine_rates(device: torch.device) -> dict[str, float]:
    """Operations a second of a large matrix product in each precision, and bytes a second (read and
    written) of a large copy: the best of several. float32 is multiplied as convolutions multiply
    it: on a CUDA GPU in TF32."""
    n = _MATRIX_SIZE[device.type]
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        with _tf32():
            seconds = _best(lambda a=a, b=b: a @ b, device)
        rates[str(dtype).removeprefix("torch.")] = 2 * n**3 / seconds
    source = torch.randint(256, (_COPIED_BYTES[device.type],), dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    rates["copy"] = 2 * len(source) / _best(lambda: copy.copy_(source), device)
    return rates


@contextmanager
def _tf32() -> Iterator[None]:
    """CUDA's matrix products of float32 in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _best(work: Callable[[], object], device: torch.device, *, repeats: int = 7) -> float:
    """Seconds of the fastest of several runs."""
    found = []
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def limit(flops: int, moved: int, rates: dict[str, float], *, precision: str) -> dict[str, float]:
    """Seconds that a step takes at least at the machine's `rates`: for its arithmetic, and for its
    bytes if none stays in a cache."""
    return {"arithmetic_s": flops / rates[precision], "bytes_s": moved / rates["copy"]}
