"""Pretrained weights: what fits is loaded, what does not is refused by name; downloads."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision import models

from networks import BACKBONES, IMAGENET_WEIGHTS
from networks.weights import download_imagenet_weights, load_backbone_weights
from utils.errors import InputError

TORCHVISION = {"mobilenetv2": models.mobilenet_v2, "resnet50": models.resnet50,
               "resnet101": models.resnet101}
STEMS = {"mobilenetv2": "features.0.0.weight", "resnet50": "conv1.weight"}


@functools.cache
def _torchvision_model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = TORCHVISION[name](weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def torchvision_state(name: str) -> dict[str, Tensor]:
    """As torchvision publishes it, classifier included; tensors to be replaced, not written to."""
    return dict(_torchvision_model(name).state_dict())


@torch.no_grad()
def torchvision_features(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of stride 4 and, the last before the classifier, of stride 32."""
    model = _torchvision_model(name)
    if name == "mobilenetv2":
        low = model.features[:4](x)
        return low, model.features[4:18](low)
    low = model.layer1(model.maxpool(model.relu(model.bn1(model.conv1(x)))))
    return low, model.layer4(model.layer3(model.layer2(low)))


@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_torchvisions_weights_give_torchvisions_features(name, output_stride):
    """Dilation in the place of stride: every second or fourth pixel is what it was with stride."""
    backbone = BACKBONES[name](output_stride=output_stride).eval()
    x = torch.randn(1, 3, 65, 70)
    low, high = torchvision_features(name, x)
    assert not torch.allclose(backbone(x)[0], low, atol=1e-3)
    load_backbone_weights(backbone, torchvision_state(name), source="a.pth")
    ours = backbone(x)
    torch.testing.assert_close(ours[0], low, atol=1e-5, rtol=1e-5)
    step = 32 // output_stride
    torch.testing.assert_close(ours[1][..., ::step, ::step], high, atol=1e-4, rtol=1e-4)
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, torchvision_state(name)[key]), key


@pytest.mark.parametrize("name", BACKBONES)
def test_counts_of_batches_may_be_missing(name):
    state = {key: tensor for key, tensor in torchvision_state(name).items()
             if not key.endswith("num_batches_tracked")}
    backbone = BACKBONES[name]()
    load_backbone_weights(backbone, state, source="a.pth")
    assert torch.equal(backbone.state_dict()[STEMS[name]], state[STEMS[name]])


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(("name", "change", "named"), [
    ("mobilenetv2", lambda _: torchvision_state("resnet50"), "features.0.0.weight is missing"),
    ("resnet50", lambda _: torchvision_state("mobilenetv2"), "conv1.weight is missing"),
    ("resnet50", lambda _: torchvision_state("resnet101"), "layer3.6.conv1.weight is not in"),
    ("mobilenetv2", lambda state: without(state, "features.3.conv.1.0.weight"),
     "features.3.conv.1.0.weight is missing"),
    ("mobilenetv2", lambda state: state | {"features.0.0.weight": torch.zeros(8, 3, 3, 3)},
     "features.0.0.weight has shape (8, 3, 3, 3), the network (32, 3, 3, 3)"),
    ("mobilenetv2", lambda state: {"state_dict": state}, "features.0.0.weight is missing"),
    ("mobilenetv2", lambda _: {}, "features.0.0.weight is missing"),
    ("mobilenetv2", lambda state: state | {"features.0.0.weight": 3}, "features.0.0.weight"),
], ids=["resnet50 in mobilenet", "mobilenet in resnet50", "resnet101 in resnet50", "lacks a layer",
        "wrong shape", "nested", "empty", "no tensor"])
def test_weights_of_another_architecture_are_refused_by_their_first_key(name, change, named):
    backbone = BACKBONES[name]()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_backbone_weights(backbone, change(torchvision_state(name)), source="other.pth")
    assert str(caught.value).startswith("other.pth: ")
    assert named in str(caught.value)
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[key]), key  # nothing is half loaded


@pytest.mark.skipif("MOBILENET_WEIGHTS" not in os.environ, reason="MOBILENET_WEIGHTS is not set")
def test_the_real_file():
    path = os.environ["MOBILENET_WEIGHTS"]
    state = torch.load(path, map_location="cpu", weights_only=True)
    backbone = BACKBONES["mobilenetv2"]().eval()
    load_backbone_weights(backbone, state, source=path)
    low, high = backbone(torch.randn(1, 3, 32, 48))
    assert low.isfinite().all() and high.isfinite().all() and high.std() > 0


# --- downloads --------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """Serves `tmp_path / "served"`; torch's hub folder is in `tmp_path` too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    handler = partial(QuietHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def publish(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`publish(state)` serves a state dict as torchvision's ImageNet weights of MobileNetv2."""

    def publish(state: dict[str, Tensor], *, digest: str | None = None) -> Path:
        torch.save(state, tmp_path / "weights.pth")
        digest = digest or hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()[:8]
        path = tmp_path / "served" / f"mobilenet_v2-{digest}.pth"
        (tmp_path / "weights.pth").rename(path)
        monkeypatch.setattr(IMAGENET_WEIGHTS["mobilenetv2"].value, "url",
                            f"http://127.0.0.1:{server.server_port}/{path.name}")
        return path

    return publish


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


STATE = {"features.0.0.weight": torch.arange(6.0).view(2, 3)}


def test_download_is_kept(publish, tmp_path):
    served = publish(STATE)
    state = download_imagenet_weights("mobilenetv2")
    assert torch.equal(state["features.0.0.weight"], STATE["features.0.0.weight"])
    assert [path.name for path in cached(tmp_path)] == [served.name]
    served.unlink()  # the second time nothing is asked of the server
    assert download_imagenet_weights("mobilenetv2").keys() == STATE.keys()


def assert_refused(*parts: str) -> None:
    with pytest.raises(InputError) as caught:
        download_imagenet_weights("mobilenetv2")
    for part in ("--weights FILE", *parts):
        assert part in str(caught.value)


def test_wrong_hash_is_refused(publish, tmp_path):
    publish(STATE, digest="0123abcd")
    assert_refused("hash", "0123abcd")
    assert not cached(tmp_path)  # else the next start would trust it


def test_file_that_the_server_does_not_have(publish):
    publish(STATE).unlink()
    assert_refused("404")


def test_no_network(publish, server):
    publish(STATE)
    server.shutdown()
    server.server_close()
    assert_refused(f"http://127.0.0.1:{server.server_port}/mobilenet_v2-")


@pytest.mark.parametrize("content", [b"", b"<html>no weights</html>"])
def test_broken_file_in_the_cache_is_refused(publish, tmp_path, content):
    served = publish(STATE)
    download_imagenet_weights("mobilenetv2")
    (tmp_path / "torch" / "hub" / "checkpoints" / served.name).write_bytes(content)
    assert_refused()


class Shout:
    """Pickled code."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["PICKLE_RAN"],)


def test_no_pickled_code_is_run(publish, tmp_path, monkeypatch):
    """The cache is not checked by hash again, so it must be read with `weights_only`."""
    monkeypatch.setenv("PICKLE_RAN", str(tmp_path / "ran"))
    publish({"features.0.0.weight": Shout()})
    assert_refused()
    assert not (tmp_path / "ran").exists()
