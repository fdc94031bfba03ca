"""A trained network as one file for other programs.

    python predict.py --checkpoint FILE --export onnx --output model.onnx

Either kind holds one function:

    images `(N, H, W, 3)` uint8, RGB, as Pillow gives them -> logits `(N, C, H, W)` float32

N, H and W are free. Normalisation, and the resize of the logits from a quarter of the size, are
inside; so no program that uses the file can normalise otherwise. What it holds besides, as strings:

    classes, palette    JSON: names, and [R, G, B] in 0..255, in the order of the logits
    grid                JSON: what images were resized to in training; size ([height, width]) or
                        longer_side or neither is null, the result divided by downsample
    mean, std           JSON: of the normalisation inside, for images in 0..1
    network             JSON: its name, backbone and other keyword arguments
    dataset, round, seed    of the training
    version, commit, torch      of the program that wrote the file; commit is empty outside of git

`onnx`: these are its `metadata_props`. Opset 18, the one that torch's exporter translates to (of
another opset the file would be a conversion); run with ONNX Runtime 1.20 and 1.32. One file.

`pt2`: a program of torch.export, for `torch.export.load(file).module()`; these are a JSON object in
its extra file `metadata.json`. Torch's documentation calls TorchScript deprecated and names this
instead (torch 2.15 warns of it), but does not promise that a later torch reads the file.
Images have to be larger than the output stride, at least 17x17 (9x9 at stride 8).
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import InputError
from utils.files import write_atomically
from utils.models import Model
from utils.version import VERSION, git_commit

OPSET = 18
METADATA_FILE = "metadata.json"  # in a .pt2
_LARGEST_ONNX = 2**31 - 2**24  # bytes of weights: 2 GB, less room for the graph
_EXAMPLE = (2, 45, 61, 3)  # odd, and nothing of it is 1: torch.export would take that as fixed


class ImagesToLogits(nn.Module):
    """What is exported: images `(N, H, W, 3)` uint8 -> logits `(N, C, H, W)` float32."""

    def __init__(self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        # Contiguous, or torch.export looks at memory formats and takes sizes apart by them.
        x = images.permute(0, 3, 1, 2).contiguous().float() / 255  # (N, 3, H, W)
        logits = self.network((x - self.mean) / self.std)
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


def exportable(model: Model) -> ImagesToLogits:
    """A copy on the CPU, in eval mode."""
    network = copy.deepcopy(model.network).to("cpu", memory_format=torch.contiguous_format)
    return ImagesToLogits(network, mean=model.config["mean"], std=model.config["std"]).eval()


def metadata_of(model: Model) -> dict[str, str]:
    """See above."""
    config, spec = model.config, model.spec
    return {
        "classes": json.dumps(spec.class_names),
        "palette": json.dumps([info.colour for info in spec.classes]),
        "grid": json.dumps(asdict(spec.grid.divided(config["downsample"]))),
        "mean": json.dumps(config["mean"]),
        "std": json.dumps(config["std"]),
        "network": json.dumps(config["network"]),
        "dataset": spec.name,
        "round": str(config["round"]),
        "seed": str(config["seed"]),
        "version": VERSION,
        "commit": git_commit(Path(__file__).resolve().parents[1]) or "",
        "torch": torch.__version__,
    }


def _traced(module: ImagesToLogits) -> torch.export.ExportedProgram:
    """For any number of images of any size."""
    import torch.export  # takes half a second, and whoever reads the flags imports this module

    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in (0, 1, 2)}
    with torch.no_grad():
        program = torch.export.export(module, (torch.zeros(_EXAMPLE, dtype=torch.uint8),),
                                      dynamic_shapes=(dynamic,), strict=False)
    # What the tracing assumed of the example's size. The least sizes stand elsewhere; but torch
    # 2.11 also assumes that pooling leaves the remainder that it leaves of the example.
    program._guards_code = []
    return program


def to_onnx(model: Model) -> bytes:
    """Raises InputError where packages are missing, and for a network that is too large."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {' and '.join(missing)}: pip install onnx onnxscript "
                         "(and onnxruntime to run the file)")
    module = exportable(model)
    n_bytes = sum(tensor.nbytes for tensor in module.state_dict().values())
    if n_bytes > _LARGEST_ONNX:
        raise InputError(f"the network has {n_bytes / 1e9:.1f} GB of weights and a single ONNX "
                         "file holds 2; give --export pt2")
    program = torch.onnx.export(_traced(module), input_names=["images"], output_names=["logits"],
                                opset_version=OPSET, verbose=False)
    graph = program.model.graph
    for value, axes in ((graph.inputs[0], (0, 1, 2)), (graph.outputs[0], (0, 2, 3))):
        dimensions = list(value.shape)
        for axis, name in zip(axes, ("N", "H", "W"), strict=True):
            dimensions[axis] = name
        value.shape = type(value.shape)(dimensions)
    program.model.metadata_props.update(metadata_of(model))
    return program.model_proto.SerializeToString()


def to_pt2(model: Model) -> bytes:
    file = io.BytesIO()
    torch.export.save(_traced(exportable(model)), file,
                      extra_files={METADATA_FILE: json.dumps(metadata_of(model))})
    return file.getvalue()


# Kind of file -> its bytes for a model.
EXPORTS: dict[str, Callable[[Model], bytes]] = {"onnx": to_onnx, "pt2": to_pt2}


def export_model(model: Model, *, kind: str, path: str | Path) -> None:
    """Write the file. `kind`: of EXPORTS. Raises InputError as its function does, and if the place
    cannot be written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's and onnxscript's, about their own insides
        content = EXPORTS[kind](model)
    write_atomically(path, lambda file: file.write(content))
