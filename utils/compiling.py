"""`--compile`: the training step with less work for the host, decided once in a round.

On a GPU a step is captured as one CUDA graph and replayed; elsewhere its forward pass is compiled.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

_WARMING_STEPS = 3  # before a capture: libraries choose their kernels, constants are uploaded


def compiled(forward: Callable[..., Tensor], backward: Callable[..., Tensor], *,
             device: torch.device, batch_size: int) -> tuple[Callable[..., Tensor], ...]:
    """The two parts of a training step (see train.py), one of them faster."""
    if device.type == "cuda":
        return forward, GraphedBackward(backward, batch_size=batch_size)
    return CompiledForward(forward, batch_size=batch_size), backward


class CompiledForward:
    """`forward(network, images, *tensors)` -> logits, compiled for the shapes at hand: once in a
    round, because points are padded to the round's number. Batches of fewer than `batch_size`
    images, the last one of an epoch, run uncompiled.

    The function is compiled, not the module: checkpoints have the same names. On the CPU dropout
    draws what it draws uncompiled. Where nothing can be compiled, one line on stderr says so and
    all goes on uncompiled."""

    def __init__(self, forward: Callable[..., Tensor], *, batch_size: int) -> None:
        self._forward, self._batch_size = forward, batch_size
        self._compiled: Callable[..., Tensor] | None = None
        self._shapes: list[torch.Size | None] = []
        self._works = True

    def __call__(self, network: nn.Module, images: Tensor, *tensors: Tensor | None) -> Tensor:
        if not self._works or len(images) < self._batch_size:
            return self._forward(network, images, *tensors)
        shapes = [None if tensor is None else tensor.shape for tensor in (images, *tensors)]
        if shapes != self._shapes:
            self._shapes, self._compiled = shapes, self._compile()
        try:
            return self._compiled(network, images, *tensors)
        except RuntimeError as error:
            if not _is_of_compiler(error):
                raise
            self._works = False
            reason = next(filter(None, map(str.strip, str(error).splitlines())), "")
            print(f"--compile: this cannot be compiled here ({type(error).__name__}: {reason}); "
                  "going on without", file=sys.stderr)
            return self._forward(network, images, *tensors)

    def _compile(self) -> Callable[..., Tensor]:
        torch.compiler.reset()  # what earlier rounds compiled counts towards dynamo's limit
        return torch.compile(self._forward, dynamic=False, options={"fallback_random": True})


def _is_of_compiler(error: RuntimeError) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    return isinstance(error, TorchDynamoException)


class GraphedBackward:
    """`backward(network, batch, total, **fixed)` -> loss `()`, which adds to the parameters'
    gradients, as a CUDA graph that is captured anew for another network, other shapes and other
    `fixed` objects. `batch` is a dataclass of tensors, `total` a tensor.

    Gradients must be None before each call, as `zero_grad()` leaves them; a network's modes must
    stay as they are. Batches of fewer than `batch_size` images, the last one of an epoch, are not
    replayed. Dropout draws from torch's generator, as it does without a graph."""

    def __init__(self, backward: Callable[..., Tensor], *, batch_size: int) -> None:
        self._backward, self._batch_size = backward, batch_size
        self._graph: _Graph | None = None

    def __call__(self, network: nn.Module, batch: Any, total: Tensor, **fixed: object) -> Tensor:
        if len(batch.images) < self._batch_size:
            return self._backward(network, batch, total, **fixed)
        if self._graph is None or not self._graph.fits(network, batch, fixed):
            self._graph = None  # its memory is free before the next one takes some
            self._graph = _Graph(self._backward, network, batch, total, fixed)
        return self._graph.step(batch, total)


class _Graph:
    """Of one network and one shape of batches. It has copies of a batch's tensors, into which each
    batch is written; the gradients lie where the capture has put them."""

    def __init__(self, backward: Callable[..., Tensor], network: nn.Module, batch: Any,
                 total: Tensor, fixed: dict[str, object]) -> None:
        self._backward, self._network, self._fixed = backward, network, fixed
        self._batch = replace(batch, **{name: tensor.clone()  # keeps channels last
                                        for name, tensor in _tensors(batch).items()})
        self._total = total.clone()
        self._stream = torch.cuda.Stream(self._total.device)
        self._n_warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def fits(self, network: nn.Module, batch: Any, fixed: dict[str, object]) -> bool:
        def shapes(of: Any) -> dict[str, torch.Size]:
            return {name: tensor.shape for name, tensor in _tensors(of).items()}

        return (network is self._network and shapes(batch) == shapes(self._batch)
                and fixed.keys() == self._fixed.keys()
                and all(value is self._fixed[name] for name, value in fixed.items()))

    def step(self, batch: Any, total: Tensor) -> Tensor:
        targets = [*_tensors(self._batch).values(), self._total]
        for target, source in zip(targets, [*_tensors(batch).values(), total], strict=True):
            target.copy_(source)
        if self._n_warm < _WARMING_STEPS:
            self._n_warm += 1
            return self._warm()
        if self._graph is None:
            self._capture()
        for parameter, gradient in self._gradients:  # zero_grad() has taken them away
            parameter.grad = gradient
        self._graph.replay()
        return self._loss.clone()  # the next replay overwrites it

    def _run(self) -> Tensor:
        return self._backward(self._network, self._batch, self._total, **self._fixed)

    def _warm(self) -> Tensor:
        """A step as it is without a graph, on the stream of the capture."""
        current = torch.cuda.current_stream(self._total.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self._run()
        current.wait_stream(self._stream)
        return loss

    def _capture(self) -> None:
        """Records the step, which computes nothing yet. Threads that read images go on."""
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream,
                              capture_error_mode="thread_local"):
            self._loss = self._run()
        self._gradients = [(parameter, parameter.grad) for parameter in self._network.parameters()
                           if parameter.grad is not None]


def _tensors(batch: Any) -> dict[str, Tensor]:
    """Those fields of a dataclass that are tensors."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
