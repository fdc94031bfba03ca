"""Downloads of pretrained weights: kept, checked, and refused in one line."""

from __future__ import annotations

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

from networks import IMAGENET_WEIGHTS, weights
from networks.weights import RELEASES, download_imagenet_weights, download_moco_v2_weights
from utils.errors import InputError


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
        monkeypatch.setattr(IMAGENET_WEIGHTS["mobilenetv2"][1].value, "url",
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


# --- MoCo v2 ----------------------------------------------------------------------------------

MOCO = {"state_dict": {"module.encoder_q.conv1.weight": torch.arange(3.0)}, "epoch": 800}


@pytest.fixture
def moco(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the server has in the place of MoCo v2's."""
    path = tmp_path / "served" / "moco.pth.tar"
    torch.save(MOCO, path)
    monkeypatch.setattr(weights, "MOCO_V2_URL",
                        f"http://127.0.0.1:{server.server_port}/{path.name}")
    monkeypatch.setattr(weights, "MOCO_V2_MD5",
                        hashlib.md5(path.read_bytes()).hexdigest()[:8])
    return path


def test_moco_v2_is_downloaded_once(moco, tmp_path):
    assert download_moco_v2_weights("resnet50")["epoch"] == 800
    assert [path.name for path in cached(tmp_path)] == [moco.name]
    moco.unlink()
    assert download_moco_v2_weights("resnet50").keys() == MOCO.keys()


@pytest.mark.parametrize("when", ["on the server", "in the cache"])
def test_another_file_is_not_moco_v2(moco, tmp_path, when):
    if when == "in the cache":
        download_moco_v2_weights("resnet50")
        cached(tmp_path)[0].write_bytes(b"<html>")
    else:
        moco.write_bytes(b"<html>")
    with pytest.raises(InputError, match="MoCo v2 .*invalid hash value.*--weights FILE"):
        download_moco_v2_weights("resnet50")


def test_moco_v2_that_cannot_be_had(moco, tmp_path):
    moco.unlink()
    with pytest.raises(InputError, match="MoCo v2 from http://.*404.*--weights FILE"):
        download_moco_v2_weights("resnet50")
    assert not cached(tmp_path)


# --- what was never released ------------------------------------------------------------------


@pytest.mark.parametrize(("weight_type", "name", "width", "message"), [
    ("supervised", "resnet50", 3, "of resnet50 with width multiplier 3, only with 1, 2"),
    ("supervised", "mobilenetv2", 2, "of mobilenetv2 with width multiplier 2, only with 1"),
    ("moco_v2", "resnet50", 2, "not for resnet50 of width 2"),
    ("moco_v2", "resnet18", 1, "not for resnet18 of width 1"),
])
def test_weights_that_were_never_released(weight_type, name, width, message):
    with pytest.raises(InputError) as caught:
        RELEASES[weight_type](name, width_multiplier=width)
    assert message in str(caught.value) and "--weights FILE" in str(caught.value)
