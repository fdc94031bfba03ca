"""Exported networks: ONNX Runtime and torch.export compute what the network computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import predict
from datasets import DATASETS
from datasets.augment import normalise
from networks import build_network
from utils import export
from utils.checkpoints import save_checkpoint
from utils.errors import InputError
from utils.models import Model, load_model

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "onnx_example.py"
SPEC, DOWNSAMPLE = DATASETS["demo"], 6  # a grid of 40x53
SIZES = [(1, 45, 61), (3, 97, 130), (1, 64, 40), (1, 17, 18)]
CPU = torch.device("cpu")


def checkpoint(path: Path, *, name: str, backbone: str) -> Path:
    """Of a network with random weights whose batch norm does something; logits have mean 0 and
    deviation 1 in every class."""
    torch.manual_seed(1)
    kwargs = dict(name=name, backbone=backbone, n_classes=SPEC.n_classes)
    network = build_network(**kwargs)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.3, 1.2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    classifier = network.decoder.classifier
    with torch.no_grad():
        images = torch.from_numpy(random_images(2, 97, 130)).permute(0, 3, 1, 2)
        logits = network.eval()(images / 255)
        deviation, mean = torch.std_mean(logits, dim=(0, 2, 3))
        classifier.bias.sub_(mean).div_(deviation)
        classifier.weight.div_(deviation[:, None, None, None])
    save_checkpoint(path, {"network": network.state_dict(), "config": {
        "dataset": SPEC.to_dict(), "downsample": DOWNSAMPLE, "n_images": None, "network": kwargs,
        "mean": (0.1, 0.2, 0.0), "std": (1.0, 0.9, 0.8), "asking": {}, "seed": 3, "round": 2}})
    return path


@pytest.fixture(scope="module", params=[("deeplab", "mobilenetv2"), ("FPN", "resnet18")],
                ids=lambda param: param[0])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt, model.onnx and model.pt2; the network is traced once for both."""
    folder = tmp_path_factory.mktemp("exported")
    path = checkpoint(folder / "model.pt", name=request.param[0], backbone=request.param[1])
    model = load_model(path, device=CPU)
    traced, programs = export._traced, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_traced", lambda module: programs[0] if programs
                      else programs.append(traced(module)) or programs[0])
        for kind in export.EXPORTS:
            export.export_model(model, kind=kind, path=folder / f"model.{kind}")
    assert sorted(file.name for file in folder.iterdir()) == [
        "model.onnx", "model.pt", "model.pt2"]  # no weights beside them
    return folder


@torch.no_grad()
def logits_of(model: Model, images: np.ndarray) -> torch.Tensor:
    """As validation computes them."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = normalise(x, mean=model.config["mean"], std=model.config["std"])
    return F.interpolate(model.network(x), size=x.shape[-2:], mode="bilinear", align_corners=False)


def assert_same(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-3, and the same classes but for ties as close."""
    assert logits.shape == expected.shape and logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 1e-3
    chosen = expected.gather(1, logits.argmax(dim=1, keepdim=True))
    assert (expected.amax(dim=1, keepdim=True) - chosen).max() < 1e-3


def random_images(*size: int) -> np.ndarray:
    """Of coarse colours, `(N, H, W, 3)` uint8, so that classes come in patches."""
    n, height, width = size
    coarse = torch.rand(n, 3, 4, 5, generator=torch.Generator().manual_seed(sum(size)))
    images = F.interpolate(coarse, size=(height, width), mode="nearest") * 255
    return images.permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()


def onnx_session(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def onnx_function(folder: Path) -> Callable[[np.ndarray], torch.Tensor]:
    session = onnx_session(folder)
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images})[0])


def pt2_function(folder: Path) -> Callable[[np.ndarray], torch.Tensor]:
    extra = {export.METADATA_FILE: ""}
    module = torch.export.load(folder / "model.pt2", extra_files=extra).module()
    assert json.loads(extra[export.METADATA_FILE]) == metadata(folder)
    return torch.no_grad()(lambda images: module(torch.from_numpy(images)))


def metadata(folder: Path) -> dict[str, str]:
    return onnx_session(folder).get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("function", [onnx_function, pt2_function])
def test_logits_are_the_networks_for_any_batch_and_size(exported, function):
    model, function = load_model(exported / "model.pt", device=CPU), function(exported)
    for size in SIZES:
        images = random_images(*size)
        expected = logits_of(model, images)
        assert expected.std() > 0.1 and len(expected.argmax(dim=1).unique()) > 1
        assert_same(function(images), expected)


def test_onnx_takes_images_of_one_pixel(exported):
    images = random_images(2, 1, 3)
    assert_same(onnx_function(exported)(images),
                logits_of(load_model(exported / "model.pt", device=CPU), images))


def test_metadata_reads_back(exported):
    proto = onnx.load(exported / "model.onnx", load_external_data=False)
    onnx.checker.check_model(proto)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", export.OPSET)]
    dimensions = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
                  for value in (proto.graph.input[0], proto.graph.output[0])]
    assert dimensions == [["N", "H", "W", 3], ["N", SPEC.n_classes, "H", "W"]]
    found = metadata(exported)
    assert tuple(json.loads(found["classes"])) == SPEC.class_names
    assert [tuple(c) for c in json.loads(found["palette"])] == [c.colour for c in SPEC.classes]
    assert json.loads(found["grid"]) == {"size": [240, 320], "longer_side": None,
                                         "downsample": DOWNSAMPLE}
    assert (json.loads(found["mean"]), json.loads(found["std"])) == ([0.1, 0.2, 0.0],
                                                                     [1.0, 0.9, 0.8])
    assert build_network(**json.loads(found["network"])) is not None
    assert (found["dataset"], found["round"], found["seed"]) == ("demo", "2", "3")
    assert found["torch"] == torch.__version__ and "commit" in found


@pytest.mark.parametrize("size", [(40, 53), (240, 318)])
def test_example_writes_the_networks_class_map(exported, tmp_path, size):
    """On an image of the grid's size and on a larger one, with nothing of ours importable."""
    image, output = random_images(1, *size), tmp_path / "labels.png"
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    subprocess.run([sys.executable, "-I", str(EXAMPLE), str(exported / "model.onnx"),
                    str(tmp_path / "image.png"), str(output)], cwd=tmp_path, check=True)
    seen = np.array(Image.fromarray(image[0]).resize((53, 40), Image.Resampling.BILINEAR))[None]
    expected = F.interpolate(logits_of(load_model(exported / "model.pt", device=CPU), seen),
                             size=size, mode="bilinear", align_corners=False)[0]
    with Image.open(output) as labels:
        assert labels.mode == "P" and labels.size == size[::-1]
        palette = np.array(labels.getpalette()[: 3 * SPEC.n_classes]).reshape(-1, 3)
        chosen = torch.from_numpy(np.array(labels)).long()
    assert palette.tolist() == [list(info.colour) for info in SPEC.classes]
    assert len(chosen.unique()) > 1
    assert (expected.amax(dim=0) - expected.gather(0, chosen[None])[0]).max() < 1e-3


# --- the command line -------------------------------------------------------------------------


def flags(path: Path, output: Path, kind: str = "onnx") -> list[str]:
    return ["--checkpoint", str(path), "--export", kind, "--output", str(output)]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model.pt", name="FPN", backbone="resnet18")


def test_command_writes_what_it_says(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(export.EXPORTS, "pt2", lambda model: model.spec.name.encode() * 250_000)
    assert predict.main(flags(small, tmp_path / "new" / "model.pt2", "pt2")) == 0
    assert (tmp_path / "new" / "model.pt2").read_bytes().startswith(b"demodemo")
    assert capsys.readouterr().out == (
        f"{tmp_path}/new/model.pt2: 1.0 MB; images (N, H, W, 3) uint8 RGB -> "
        f"logits (N, {SPEC.n_classes}, H, W) float32\n")


def test_place_that_cannot_be_written(small, tmp_path, monkeypatch):
    monkeypatch.setitem(export.EXPORTS, "pt2", lambda model: b"")
    with pytest.raises(InputError, match="cannot write .*model.pt/model.pt2"):
        predict.main(flags(small, small / "model.pt2", "pt2"))


def test_missing_packages_are_named(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec",
                        lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(InputError, match="needs onnxscript: pip install onnx onnxscript"):
        predict.main(flags(small, tmp_path / "model.onnx"))
    assert not (tmp_path / "model.onnx").exists()


def test_network_too_large_for_one_onnx_file(small, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_LARGEST_ONNX", 10_000_000)
    with pytest.raises(InputError, match="GB of weights .* --export pt2"):
        predict.main(flags(small, tmp_path / "model.onnx"))


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint"])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "other.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}: cannot be read as a checkpoint"):
        predict.main(flags(path, tmp_path / "model.onnx"))


def test_flags_of_predictions_are_refused(small, tmp_path):
    with pytest.raises(InputError, match="--flip has no meaning with --export"):
        predict.main([*flags(small, tmp_path / "model.onnx"), "--flip"])


@pytest.mark.parametrize("more", [["--input", "images"], None])
def test_either_images_or_an_export(small, tmp_path, more):
    words = flags(small, tmp_path / "model.onnx") + more if more else [
        "--checkpoint", str(small), "--output", str(tmp_path)]
    with pytest.raises(InputError, match="--input.* --export"):
        predict.main(words)
