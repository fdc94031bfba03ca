"""CUDA graphs as far as they can be had without a GPU: operations are recorded and done again, on
the same tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph(TorchDispatchMode):
    """Stands for torch.cuda.CUDAGraph. What is recorded leaves no trace in tensors that were there
    before, and none in the generator; a replay writes into the tensors that were made."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert "_local_scalar_dense" not in str(function), "the host waits for a number"
        # What may be written to; tensors that repeat their values (`expand`) are not.
        self._before += [(leaf, leaf.clone()) for leaf in _tensors((args, kwargs))
                         if 0 not in leaf.stride()]
        result = function(*args, **kwargs)
        self._calls.append((function, args, kwargs, result))
        return result

    @torch.no_grad()
    def forget(self) -> None:
        for tensor, value in reversed(self._before):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self._calls:
            again = function(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class _Stream:
    def __init__(self, device: torch.device | None = None) -> None:
        pass

    def wait_stream(self, stream: _Stream) -> None:
        pass


def record_graphs(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """From now on torch.cuda's graphs are recorded ones; those that are captured."""
    captured: list[RecordedGraph] = []

    @contextmanager
    def capture(graph: RecordedGraph, **_: object) -> Iterator[None]:
        captured.append(graph)
        state = torch.get_rng_state()
        with graph:
            yield
        graph.forget()
        torch.set_rng_state(state)

    for name, stand_in in {"CUDAGraph": RecordedGraph, "graph": capture, "Stream": _Stream,
                           "stream": lambda _: nullcontext(),
                           "current_stream": _Stream}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return captured
