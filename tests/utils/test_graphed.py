"""`--compile` on a GPU: a replayed step is the step itself. Without a GPU on recorded graphs, which
see no difference in speed but do what CUDA's do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import train
from datasets.batches import Batch
from datasets.points import VOID
from networks import build_network
from tests.utils.recorded_graphs import record_graphs
from utils.compiling import GraphedBackward
from utils.device import select_autocast
from utils.errors import InputError
from utils.losses import CrossEntropy

N_CLASSES = 5
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batch_of(n_images: int, *, n_points: int, seed: int, device: str) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n_images, 3, 32, 48, generator=generator)
    if n_points == 0:
        labels = torch.randint(N_CLASSES, (n_images, 32, 48), generator=generator)
        batch = dict(images=images, labels=labels)
    else:
        size = torch.tensor([32, 48])
        points, drawn = (torch.rand(n_images, n, 2, generator=generator) * size
                         for n in (n_points, 24))
        labels = torch.randint(VOID, N_CLASSES, (n_images, n_points), generator=generator)
        batch = dict(images=images, points=points, statistics_points=drawn, labels=labels)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    batch["images"] = batch["images"].contiguous(memory_format=torch.channels_last)
    return Batch(**batch)


def trained(name: str, backbone: str, *, device: str, n_points: int,
            backward: Callable[..., Tensor]) -> tuple[list[Tensor], nn.Module]:
    """Loss and all gradients of each step of two epochs; the network."""
    torch.manual_seed(0)
    network = build_network(name, backbone=backbone, n_classes=N_CLASSES)
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    loss = CrossEntropy(weights=torch.linspace(0.5, 1.5, N_CLASSES, device=device), focal=1.5)
    forward, seen = train.forward_of(select_autocast("off", torch.device(device))), []

    def watched(*args, **kwargs) -> Tensor:
        part = backward(*args, **kwargs)
        seen.extend([part, *(p.grad.clone() for p in network.parameters())])
        return part

    for epoch in range(2):
        torch.manual_seed(epoch)
        batches = [batch_of(n, n_points=n_points, seed=10 * epoch + i, device=device)
                   for i, n in enumerate(((3, 3, 3, 2), (3, 3))[epoch])]  # one is smaller
        mean = train.train_one_epoch(
            network, batches, optimizer=optimizer, backward=watched, forward=forward, loss=loss,
            schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
            step_done=lambda _: None)
        seen.append(torch.tensor(mean))
    return seen, network


@pytest.mark.parametrize(("network", "n_points"), [
    (("deeplab", "mobilenetv2"), 4), (("FPN", "resnet18"), 0)], ids=["points", "masks"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_replayed_step_is_the_step(device: str, network: tuple[str, str], n_points: int,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, gradients, weights and running statistics over two epochs, with dropout; of two
    networks after each other, each captured once. A GPU may add in another order."""
    captured = record_graphs(monkeypatch) if device == "cpu" else None
    tolerance = dict(rtol=0, atol=0) if device == "cpu" else dict(rtol=2e-3, atol=1e-4)
    how = dict(device=device, n_points=n_points)
    expected, plain = trained(*network, backward=train.backward, **how)
    graphed = GraphedBackward(train.backward, batch_size=3)
    for number in (1, 2):
        seen, other = trained(*network, backward=graphed, **how)
        torch.testing.assert_close(seen, expected, **tolerance)
        torch.testing.assert_close(other.state_dict(), plain.state_dict(), **tolerance)
        assert captured is None or len(captured) == number


def test_what_cannot_be_captured_is_refused(run_train, monkeypatch) -> None:
    monkeypatch.setattr(train, "select_device", lambda _: torch.device("cuda"))
    with pytest.raises(InputError, match="--compile on a GPU is for one process"):
        run_train("--compile", "--grad_accum", "2", "--batch_size", "4")
