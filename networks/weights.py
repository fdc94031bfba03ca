"""Pretrained weights of a backbone, in torchvision's names."""

from __future__ import annotations

from http.client import HTTPException
from pickle import UnpicklingError
from urllib.error import URLError

from torch import Tensor, nn
from torch.hub import get_dir

from networks.backbones import IMAGENET_WEIGHTS
from utils.errors import InputError


def download_imagenet_weights(backbone: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights, downloaded once (into torch's hub folder) and checked by
    their hash. Raises InputError when they cannot be had."""
    weights = IMAGENET_WEIGHTS[backbone]
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    # Besides what a network can do: a broken file in the hub's folder, a broken transfer.
    except (URLError, HTTPException, OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise InputError(
            f"cannot get {weights} from {weights.url} ({error}); fetch the file elsewhere and give "
            f"it with --weights FILE, or start from --weight_type random (a broken file in "
            f"{get_dir()}/checkpoints has to be deleted)") from error


def load_backbone_weights(backbone: nn.Module, state: dict[str, Tensor], *, source: str) -> None:
    """Load `state` into `backbone`; the layers behind the backbone (a classifier) are left out.

    Raises InputError with the first key that does not fit."""
    if not isinstance(state, dict):
        raise InputError(f"{source}: holds a {type(state).__name__}, not a state dict")
    expected = backbone.state_dict()
    state = {str(name): tensor for name, tensor in state.items()
             if not str(name).startswith(backbone.layers_behind)}
    for name in [*expected, *state]:
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            problem = "is missing"
        elif name not in expected:
            problem = "is not in the network"
        elif not isinstance(state[name], Tensor):
            problem = "is no tensor"
        elif state[name].shape != expected[name].shape:
            problem = (f"has shape {tuple(state[name].shape)}, the network "
                       f"{tuple(expected[name].shape)}")
        else:
            continue
        raise InputError(f"{source}: weights of another architecture: {name} {problem}; they must "
                         f"be a torchvision {type(backbone).__name__}'s")
    backbone.load_state_dict(state, strict=False)
