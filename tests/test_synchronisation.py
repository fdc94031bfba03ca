"""Nothing in a training step or in a batch of a validation waits for a GPU. Checked without one: on
tensors that have a device and a shape, but no values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import utils.optimisation
from datasets.augment import Augmentation
from datasets.batches import Batch, TrainingSet, training_batches
from datasets.images import IGNORE
from networks import build_network
from train import forward_of
from utils.device import constant, select_autocast, upload
from utils.losses import CrossEntropy
from utils.metrics import ConfusionMatrix
from utils.optimisation import Average
from utils.teacher import Teacher

# Operations whose result has a shape, or is a number, that only the device knows.
WAITING = ("_local_scalar_dense", "nonzero", "bincount", "unique", "masked_select", "equal.default")


class Waits(TorchDispatchMode):
    """Collects the operations for which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(function)
        result = function(*args, **kwargs)
        if any(waiting in name for waiting in WAITING):
            self.found.append(name)
        if "_to_copy" in name or "copy_" in name:
            source, target = (args[0], result) if "_to_copy" in name else (args[1], args[0])
            queued = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            if source.device != target.device and (target.is_cpu or not queued):
                self.found.append(name)
        return result


@pytest.fixture
def own_constants() -> Iterator[None]:
    """What is uploaded once has no values here, and is not to be left to other tests."""
    constant.cache_clear()
    yield
    constant.cache_clear()


@pytest.mark.parametrize("network", [("deeplab", "mobilenetv2"), ("FPN", "resnet18")],
                         ids=lambda network: network[0])
def test_nothing_waits_for_the_device(network: tuple[str, str], own_constants: None,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    augmentation = Augmentation(crop=(48, 64), mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
    images = np.zeros((4, 48, 64, 3), np.uint8)
    found: dict[str, list[str]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device(gpu):
            model, other = (build_network(network[0], backbone=network[1], n_classes=5)
                            for _ in range(2))
            confusion = ConfusionMatrix(5, ignore_index=IGNORE, device=gpu)
            data = TrainingSet(names=list("abcd"), sizes=np.tile([48, 64], (4, 1)), device=gpu,
                               images=upload(images, gpu), points=torch.rand(4, 3, 2),
                               labels=torch.zeros(4, 3, dtype=torch.int64))
            loss = CrossEntropy(weights=torch.rand(5), offsets=torch.rand(5), focal=2.0)
            with monkeypatch.context() as patch:  # no copy of what has no values
                patch.setattr(utils.optimisation, "deepcopy", lambda _: other)
                average = Average(model, decay=0.9)
        autocast = select_autocast("off", gpu)
        forward = forward_of(autocast, at_all=True)
        teacher = Teacher(network=average.module, autocast=autocast, progress=lambda: 0.5,
                          weight=1.0, targets="hard", threshold=0.5, class_weights=loss.weights)

        def losses(epoch: int) -> list[torch.Tensor]:
            batches: list[Batch] = list(training_batches(
                data, augmentation=augmentation, batch_size=2, key=(epoch,),
                n_statistics_points=24, with_weak=True))
            found = []
            for batch in batches:
                logits, drawn = forward(model, batch.images, batch.points,
                                        batch.statistics_points).tensor_split([3], dim=1)
                found.append(loss(logits, batch.labels, ignore_index=batch.ignore_index)
                             + teacher.loss(batch, drawn))
                average.update(model)
            return found

        losses(0)  # uploads what is uploaded once
        with Waits() as waits:
            assert len(losses(1)) == 2
        found["training"] = waits.found
        with Waits() as waits, torch.no_grad():
            logits = model.eval()(torch.rand(2, 3, 48, 64, device=gpu))
            confusion.update(logits.argmax(dim=1), torch.zeros_like(logits[:, 0]).byte())
        found["validation"] = waits.found
        with Waits() as waits:
            logits.sum().to("cpu")
        assert waits.found  # it would be seen
    assert found == {"training": [], "validation": []}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_epoch_on_a_gpu_waits_once(run_train, monkeypatch) -> None:
    """Only for its mean loss. PyTorch itself raises an error where the host waits."""
    import train

    epoch = train.train_one_epoch

    def watched(*args, **kwargs) -> float:
        item = torch.Tensor.item
        torch.cuda.set_sync_debug_mode("error")

        def allowed(tensor: torch.Tensor) -> float:
            torch.cuda.set_sync_debug_mode("default")
            return item(tensor)

        monkeypatch.setattr(torch.Tensor, "item", allowed)
        try:
            return epoch(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            monkeypatch.setattr(torch.Tensor, "item", item)

    monkeypatch.setattr(train, "train_one_epoch", watched)
    run_train("--device", "cuda", "--max_budget", "4")
