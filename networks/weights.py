"""Pretrained weights of a backbone: published files, whatever names they keep a ResNet under."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

from torch import Tensor, nn
from torch.hub import get_dir

from networks.backbones import IMAGENET_WEIGHTS
from utils.checkpoints import load_checkpoint
from utils.downloads import download
from utils.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a kind of file keeps a backbone: in its entry `container` (None: in the file itself),
    under torchvision's names behind `prefix`."""

    title: str
    container: str | None = None
    prefix: str = ""

    def state(self, content: dict) -> dict:
        """The state dict among the file's contents; empty if there is none."""
        state = content if self.container is None else content.get(self.container)
        return state if isinstance(state, dict) else {}

    def entries(self, content: dict) -> dict[str, object]:
        """What stands behind the prefix, without it."""
        return {str(name)[len(self.prefix):]: value for name, value in self.state(content).items()
                if str(name).startswith(self.prefix)}


# Of those that hold as much of the backbone as any other, the first is taken.
LAYOUTS = (
    # Also the files of a backbone alone that DINO and Barlow Twins publish.
    Layout(title="torchvision"),
    Layout(title="torchvision segmentation network", prefix="backbone."),
    Layout(title="checkpoint of this program", container="network", prefix="backbone."),
    Layout(title="MoCo v1 or v2", container="state_dict", prefix="module.encoder_q."),
    Layout(title="MoCo v3", container="state_dict", prefix="module.base_encoder."),
    Layout(title="SwAV, DeepCluster v2 or the like", prefix="module."),
    Layout(title="DINO teacher", container="teacher", prefix="module.backbone."),
    Layout(title="DINO teacher", container="teacher", prefix="backbone."),
    Layout(title="DINO student", container="student", prefix="module.backbone."),
    Layout(title="DINO student", container="student", prefix="backbone."),
    Layout(title="Barlow Twins", container="model", prefix="module.backbone."),
    Layout(title="training checkpoint", container="state_dict", prefix="module."),
    Layout(title="training checkpoint", container="state_dict"),
    Layout(title="training checkpoint", container="model"),
)


def backbone_weights(content: object, backbone: nn.Module, *,
                     source: str) -> tuple[dict[str, Tensor], str]:
    """What a file holds of `backbone`, in torchvision's names, and a line for the user that says
    what was recognised and what was left out. Only counters of batches may be missing.

    Raises InputError, with the number of names that do not fit and the first of them."""
    if not isinstance(content, dict):
        raise InputError(f"{source}: holds a {type(content).__name__}, not a state dict")
    expected = backbone.state_dict()
    layout = max(LAYOUTS, key=lambda layout: len(layout.entries(content).keys() & expected))
    found = layout.entries(content)
    state = {name: found[name] for name in expected if name in found}
    if not state:
        raise InputError(f"{source}: holds no weights of {backbone.name} under any names known "
                         f"here; {_listed(content, 'entries')}")
    problems = _problems(found, backbone)
    if problems:
        raise InputError(f"{source}: weights ({layout.title}) of another architecture than "
                         f"{backbone.name}: {'; '.join(problems)}")
    used = {layout.prefix + name for name in state}
    rest = [name for name in layout.state(content) if str(name) not in used]
    return state, (f"{source}: {layout.title}, {len(state)} entries of {backbone.name}; "
                   f"{_listed([name for name in expected if name not in state], 'missing')}, "
                   f"{_listed(rest, 'left out')}")


def load_backbone_weights(backbone: nn.Module, content: object, *, source: str) -> str:
    """Load what a file holds of `backbone`; see `backbone_weights`, whose line is returned."""
    state, report = backbone_weights(content, backbone, source=source)
    backbone.load_state_dict(state, strict=False)
    return report


def _problems(found: dict[str, object], backbone: nn.Module) -> list[str]:
    """Why entries are not the weights of `backbone`. Entries of layers that it has not are none,
    unless they stand inside a stage of it: such belong to a deeper or other network."""
    expected = backbone.state_dict()
    shapes = {name: value.shape if isinstance(value, Tensor) else None
              for name, value in found.items()}
    stages = {name.partition(".")[0] for name in expected}
    missing = [name for name in expected
               if name not in found and not name.endswith("num_batches_tracked")]
    different = [f"{name} is {_shape(shapes[name])}, not {_shape(tensor.shape)}"
                 for name, tensor in expected.items()
                 if name in found and shapes[name] != tensor.shape]
    unexpected = [name for name in found
                  if name not in expected and name.partition(".")[0] in stages
                  and not name.startswith(backbone.layers_behind)]
    return [_listed(names, what) for names, what in (
        (missing, "missing"), (different, "of another shape"), (unexpected, "unexpected")) if names]


def _shape(shape: Sequence[int] | None) -> str:
    return "no tensor" if shape is None else "x".join(map(str, shape)) or "a number"


def _listed(names: Sequence[object] | dict, what: str) -> str:
    """`4 missing (a, b, c, ...)`."""
    if not names:
        return f"0 {what}"
    first = ", ".join(str(name) for name in list(names)[:3])
    return f"{len(names)} {what} ({first}{', ...' if len(names) > 3 else ''})"


# --- downloads ----------------------------------------------------------------------------------

MOCO_V2_URL = ("https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/"
               "moco_v2_800ep_pretrain.pth.tar")
MOCO_V2_MD5 = "a04e12f8"  # begins with this, says the README of facebookresearch/moco


def download_imagenet_weights(backbone: str, *, width_multiplier: int = 1) -> dict[str, Tensor]:
    """torchvision's ImageNet weights, downloaded once (into torch's hub folder) and checked by
    their hash. Raises InputError when they cannot be had."""
    released = IMAGENET_WEIGHTS[backbone]
    if width_multiplier not in released:
        raise InputError(f"torchvision has no ImageNet weights of {backbone} with width multiplier "
                         f"{width_multiplier}, only with {', '.join(map(str, released))}; give a "
                         "file with --weights FILE, or start from --weight_type random")
    weights = released[width_multiplier]
    with _downloading(str(weights), weights.url):
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)


def download_moco_v2_weights(backbone: str, *, width_multiplier: int = 1) -> dict:
    """The authors' MoCo v2 checkpoint (arXiv 2003.04297) of 800 epochs, downloaded once (into
    torch's hub folder) and checked by its hash. Raises InputError when it cannot be had."""
    if (backbone, width_multiplier) != ("resnet50", 1):
        raise InputError(f"MoCo v2 was released for resnet50 of width 1 only, not for {backbone} "
                         f"of width {width_multiplier}; give a file with --weights FILE")
    path = Path(get_dir(), "checkpoints", MOCO_V2_URL.rpartition("/")[2])
    with _downloading("the weights of MoCo v2", MOCO_V2_URL):
        if not path.exists():
            download(MOCO_V2_URL, path)
        if not _md5(path).startswith(MOCO_V2_MD5):
            raise RuntimeError(f"invalid hash value (expected {MOCO_V2_MD5!r})")
    return load_checkpoint(path)


# Weights that can be had by name: the name -> download for (backbone, width_multiplier=...).
RELEASES: dict[str, Callable[..., dict]] = {
    "supervised": download_imagenet_weights,
    "moco_v2": download_moco_v2_weights,
}


def pretrained_weights(backbone: nn.Module, *, weight_type: str, path: str | None, name: str,
                       width_multiplier: int) -> dict[str, Tensor] | None:
    """What the backbone called `name` starts from: `random`, which is None, the `file` at `path`,
    or one of RELEASES; what was recognised is said on stderr. Raises InputError if it does not fit.
    """
    if weight_type == "random":
        return None
    if weight_type == "file":
        content, source = load_checkpoint(path), path
    else:
        source = weight_type
        content = RELEASES[source](name, width_multiplier=width_multiplier)
    state, report = backbone_weights(content, backbone, source=source)
    print(report, file=sys.stderr)
    return state


@contextmanager
def _downloading(what: str, url: str) -> Iterator[None]:
    """Turns what can go wrong with a download into an InputError."""
    try:
        yield
    # Besides what a network can do: a broken file in the hub's folder, a broken transfer.
    except (URLError, HTTPException, OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(
            f"cannot get {what} from {url} ({error}); fetch the file elsewhere and give it with "
            f"--weights FILE, or start from --weight_type random (a broken file in "
            f"{get_dir()}/checkpoints has to be deleted)") from error


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
