"""The authors' checkpoints: their names become ours, and our networks compute what theirs do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks import build_network
from networks.original import convert_original, is_original
from tests.networks.original_files import deeplab_logits, deeplab_state, fpn_logits, fpn_state
from utils.errors import InputError

N_CLASSES = 4
KINDS = {"deeplab": ("original_deeplab", "mobilenetv2", deeplab_state, deeplab_logits),
         "FPN": ("original_FPN", "resnet50", fpn_state, fpn_logits)}


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> tuple:
    """Name and backbone here, their state dict, the function of their arithmetic."""
    name, backbone, state, logits = KINDS[request.param]
    torch.manual_seed(0)
    return name, backbone, state(N_CLASSES), logits


@pytest.fixture(scope="module")
def network(kind) -> torch.nn.Module:
    kwargs, state = convert_original({"model": kind[2]}, source="file")
    assert (kwargs["name"], kwargs["backbone"], kwargs["n_classes"]) == (*kind[:2], N_CLASSES)
    network = build_network(**kwargs).eval()
    network.load_state_dict(state)
    return network


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.01  # else anything would be near
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@torch.no_grad()
def test_the_same_logits(kind, network):
    x = torch.randn(2, 3, 64, 88)
    assert_close(network(x), kind[3](kind[2], x))
    assert_close(network.decode(network.backbone(x), (64, 88)), network(x))  # as a committee does


@torch.no_grad()
def test_other_sizes_are_padded_by_reflection_as_theirs_are(kind, network):
    x = torch.randn(1, 3, 61, 82)
    padded = F.pad(x, (0, 6, 0, 3), mode="reflect")
    assert_close(network(x), kind[3](kind[2], padded)[..., :61, :82])


@torch.no_grad()
def test_too_narrow_to_be_reflected(kind, network):
    x = torch.randn(1, 3, 3, 40)
    padded = F.pad(x, (0, 0, 0, 5), mode="replicate")
    assert_close(network(x), kind[3](kind[2], padded)[..., :3, :])


def test_points_are_refused(network):
    with pytest.raises(InputError, match="for prediction.*--weights FILE"):
        network(torch.randn(2, 3, 64, 64), torch.zeros(2, 1, 2))


def test_networks_of_several_gpus_and_files_without_counters(kind):
    name, _, state, _ = kind
    state = {f"module.{key}": value for key, value in state.items()
             if not key.endswith("num_batches_tracked")}
    assert is_original({"model": state})
    assert convert_original({"model": state}, source="file")[0]["name"] == name


def _without_one(state):
    del state[next(name for name in state if "classifier.weight" in name)]


def _one_more(state):
    state["mask_head.conv.weight"] = torch.zeros(1)


def _one_wide(state):
    name = next(name for name in state if name.endswith("classifier.weight"))
    state[name] = state[name][:, :-1]


@pytest.mark.parametrize(("change", "message"), [
    (_without_one, "1 entries differ .*classifier.weight is missing"),
    (_one_more, "mask_head.conv.weight is unknown"),
    (_one_wide, "classifier.weight is .*, not "),
])
def test_files_that_do_not_fit(kind, change, message):
    state = dict(kind[2])
    change(state)
    with pytest.raises(InputError, match=f"some.pt: does not fit .*{message}"):
        convert_original({"model": state}, source="some.pt")


@pytest.mark.parametrize("content", [None, {}, {"model": 1}, {"model": {"conv1.weight": 0}},
                                     {"network": {}}])
def test_other_files(content):
    assert not is_original(content)
    with pytest.raises(InputError, match="some.pt: is no checkpoint of PixelPick's authors"):
        convert_original(content, source="some.pt")


def test_copies_that_differ():
    state = deeplab_state(N_CLASSES)
    state["backbone.low_level_features.0.0.weight"] = torch.zeros(32, 3, 3, 3)
    with pytest.raises(InputError, match="low_level_features.0.0.weight differs"):
        convert_original({"model": state}, source="some.pt")
