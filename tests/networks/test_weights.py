"""Pretrained weights: what fits is loaded, what does not is refused by name; downloads."""

from __future__ import annotations

import argparse
import functools
import os

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from networks import BACKBONES, build_network
from networks.weights import (
    backbone_weights,
    load_backbone_weights,
)
from utils.checkpoints import load_checkpoint
from utils.errors import InputError

STEMS = {"mobilenetv2": "features.0.0.weight", "resnet18": "conv1.weight",
         "resnet50": "conv1.weight"}


@functools.cache
def _torchvision_state(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return getattr(models, name)(weights=None).state_dict()


def torchvision_state(name: str) -> dict[str, Tensor]:
    """As torchvision publishes it, classifier included; tensors to be replaced, not written to."""
    return dict(_torchvision_state({"mobilenetv2": "mobilenet_v2"}.get(name, name)))


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def without(state: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items()
            if not any(part in name for part in parts)}


def assert_loaded(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[key]), key


# --- the names of published files -------------------------------------------------------------
# As their programs save them, read off their code: names, shapes and nesting, with other numbers.


def resnet50(seed: int = 0) -> dict[str, Tensor]:
    """torchvision's names without the classifier: 318 entries, as DINO and Barlow Twins publish
    them. Another `seed`: the same with other numbers."""
    state = without(torchvision_state("resnet50"), "fc.")
    return {name: tensor + seed for name, tensor in state.items()} if seed else state


def layers(*modules: nn.Module) -> dict[str, Tensor]:
    return nn.Sequential(*modules).state_dict()


def mlp() -> dict[str, Tensor]:
    return layers(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128))


def optimizer_state() -> dict:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    optimizer.step()
    return optimizer.state_dict()


def moco_v2() -> dict:
    """main_moco.py's, with `--mlp`; the queue has 65536 keys in the release."""
    encoders = {f"module.encoder_{which}.{name}": tensor for which, seed in (("q", 0), ("k", 1))
                for name, tensor in (resnet50(seed) | prefixed("fc.", mlp())).items()}
    queue = {"module.queue": torch.zeros(128, 8), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 800, "arch": "resnet50", "state_dict": encoders | queue,
            "optimizer": optimizer_state()}


def swav() -> dict:
    head = layers(nn.Linear(2048, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 128))
    return prefixed("module.", resnet50() | prefixed("projection_head.", head)
                    | {"prototypes.weight": torch.zeros(3000, 128)})


def deepcluster_v2() -> dict:
    state = without(swav(), "prototypes")
    return state | {f"module.prototypes.prototypes{i}.weight": torch.zeros(3000, 128)
                    for i in range(3)}


def dino_checkpoint(*, prefix: str = "module.") -> dict:
    head = prefixed("mlp.", mlp()) | {
        "last_layer.weight_g": torch.zeros(60, 1), "last_layer.weight_v": torch.zeros(60, 128)}
    student, teacher = (prefixed(prefix, prefixed("backbone.", state) | prefixed("head.", head))
                        for state in (resnet50(1), resnet50()))
    return {"student": student, "teacher": teacher, "optimizer": optimizer_state(), "epoch": 800,
            "dino_loss": {"center": torch.zeros(1, 60)},
            "args": argparse.Namespace(arch="resnet50", lr=0.03)}


def barlow_twins_checkpoint() -> dict:
    model = (prefixed("backbone.", resnet50()) | prefixed("projector.", mlp())
             | prefixed("bn.", nn.BatchNorm1d(128, affine=False).state_dict()))
    return {"epoch": 1000, "model": prefixed("module.", model), "optimizer": optimizer_state()}


def own_checkpoint() -> dict:
    network = build_network("FPN", backbone="resnet50", n_classes=3)
    load_backbone_weights(network.backbone, resnet50(), source="a.pth")
    return {"network": dict(network.state_dict()), "config": {"dataset": "camvid"},
            "optimizer": optimizer_state(), "epoch": 50}


FILES = {  # content, what is recognised, names left out of the state dict it is in
    "torchvision": (lambda: torchvision_state("resnet50"), "torchvision,", 2),
    "dino or barlow twins, backbone": (resnet50, "torchvision,", 0),
    "moco v2": (moco_v2, "MoCo v1 or v2,", 4 + 318 + 4 + 2),
    "moco v3": (lambda: {"state_dict": prefixed("module.base_encoder.", resnet50())
                         | prefixed("module.momentum_encoder.", resnet50(1))}, "MoCo v3,", 318),
    "swav": (swav, "SwAV, DeepCluster v2 or the like,", 9 + 1),
    "deepcluster v2": (deepcluster_v2, "SwAV, DeepCluster v2 or the like,", 9 + 3),
    "dino": (dino_checkpoint, "DINO teacher,", 6),
    "dino, one process": (lambda: dino_checkpoint(prefix=""), "DINO teacher,", 6),
    "dino, student": (lambda: {"student": dino_checkpoint()["teacher"]}, "DINO student,", 6),
    "barlow twins": (barlow_twins_checkpoint, "Barlow Twins,", 4 + 3),
    "ImageNet example": (lambda: {"state_dict": prefixed("module.", torchvision_state("resnet50"))},
                         "training checkpoint,", 2),
    "torchvision reference": (lambda: {"model": torchvision_state("resnet50"), "epoch": 3},
                              "training checkpoint,", 2),
    "torchvision deeplabv3": (lambda: prefixed("backbone.", resnet50())
                              | {"classifier.4.bias": torch.zeros(21)},
                              "torchvision segmentation network,", 1),
    "this program": (own_checkpoint, "checkpoint of this program,", None),
}


@pytest.mark.parametrize("name", FILES)
def test_published_names(name, tmp_path):
    """Through a file, as torch writes it and as it is read here."""
    build, title, n_left_out = FILES[name]
    content = build()
    assert len(resnet50()) == 318  # 53 convolutions, 53 norms of five entries
    torch.save(content, tmp_path / "file.pth")
    backbone = BACKBONES["resnet50"](output_stride=8)
    report = load_backbone_weights(backbone, load_checkpoint(tmp_path / "file.pth"),
                                   source="file.pth")
    assert_loaded(backbone, resnet50())
    assert report.startswith(f"file.pth: {title} 318 entries of resnet50; 0 missing, ")
    if n_left_out is not None:
        assert f", {n_left_out} left out" in report
    assert "\n" not in report and len(report) < 300


def test_what_is_left_out_is_named():
    *_, report = backbone_weights(moco_v2(), BACKBONES["resnet50"](), source="moco.pth.tar")
    assert report.endswith("328 left out (module.encoder_q.fc.0.weight, "
                           "module.encoder_q.fc.0.bias, module.encoder_q.fc.2.weight, ...)")


def test_weights_found_once_fit_every_fresh_backbone():
    state, _ = backbone_weights(moco_v2(), BACKBONES["resnet50"](), source="a.pth")
    assert state.keys() == resnet50().keys()
    backbone = BACKBONES["resnet50"]()
    load_backbone_weights(backbone, state, source="a.pth")
    assert_loaded(backbone, resnet50())


@pytest.mark.parametrize("name", STEMS)
def test_counts_of_batches_may_be_missing(name):
    state = without(torchvision_state(name), "num_batches_tracked")
    backbone = BACKBONES[name]()
    report = load_backbone_weights(backbone, state, source="a.pth")
    assert torch.equal(backbone.state_dict()[STEMS[name]], state[STEMS[name]])
    counts = [key for key in backbone.state_dict() if key.endswith("num_batches_tracked")]
    assert f"; {len(counts)} missing ({counts[0]}, " in report


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "change", "named"), [
    ("mobilenetv2", lambda _: torchvision_state("resnet50"),
     "holds no weights of mobilenetv2 under any names known here; 320 entries (conv1.weight, "),
    ("resnet50", lambda _: torchvision_state("mobilenetv2"), "holds no weights of resnet50"),
    ("resnet50", lambda _: torchvision_state("resnet101"), "306 unexpected (layer3.6.conv1.weight"),
    ("resnet18", lambda _: torchvision_state("resnet34"), "96 unexpected (layer1.2.conv1.weight,"),
    ("resnet34", lambda _: torchvision_state("resnet18"), "80 missing (layer1.2.conv1.weight,"),
    ("resnet50", lambda _: torchvision_state("wide_resnet50_2"),
     "(layer1.0.conv1.weight is 128x64x1x1, not 64x64x1x1, "),
    ("mobilenetv2", lambda state: without(state, "features.3.conv.1.0.weight"),
     ": 1 missing (features.3.conv.1.0.weight)"),
    ("mobilenetv2", lambda state: state | {"features.0.0.weight": torch.zeros(8, 3, 3, 3)},
     ": 1 of another shape (features.0.0.weight is 8x3x3x3, not 32x3x3x3)"),
    ("mobilenetv2", lambda state: {"state_dict": without(state, "features.2.conv.3.bias")},
     "weights (training checkpoint) of another architecture than mobilenetv2: 1 missing"),
    ("mobilenetv2", lambda _: {}, "holds no weights of mobilenetv2"),
    ("mobilenetv2", lambda state: state | {"features.0.0.weight": 3}, "weight is no tensor, not"),
    ("mobilenetv2", lambda state: list(state), "holds a list, not a state dict"),
    ("resnet50", lambda _: {"state_dict": moco_v2}, "holds no weights of resnet50"),
    ("resnet18", lambda _: moco_v2()["state_dict"], "holds no weights of resnet18"),
    ("resnet18", lambda _: moco_v2(), "weights (MoCo v1 or v2) of another architecture"),
], ids=["resnet50 in mobilenet", "mobilenet in resnet50", "resnet101 in resnet50",
        "resnet34 in resnet18", "resnet18 in resnet34", "wide in narrow", "lacks a layer",
        "wrong shape", "nested and incomplete", "empty", "no tensor", "no dict", "container is no "
        "dict", "unknown prefix", "moco in resnet18"])
def test_weights_of_another_architecture_are_refused_by_their_first_names(name, change, named):
    backbone = BACKBONES[name]()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_backbone_weights(backbone, change(torchvision_state(name)), source="other.pth")
    message = str(caught.value)
    assert message.startswith("other.pth: ") and "\n" not in message and len(message) < 900
    assert named in message
    assert_loaded(backbone, before)  # nothing is half loaded


@pytest.mark.parametrize(("backbone", "variable"), [
    ("mobilenetv2", "MOBILENET_WEIGHTS"), ("resnet50", "RESNET50_WEIGHTS")])
def test_real_file(backbone, variable):
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set")
    network = BACKBONES[backbone]().eval()
    load_backbone_weights(network, load_checkpoint(os.environ[variable]), source=variable)
    for features in network(torch.randn(1, 3, 32, 48)):
        assert features.isfinite().all() and features.std() > 0
