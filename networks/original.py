"""Checkpoints of PixelPick's authors: a dictionary whose entry `model` is the state dict of their
DeepLabv3+ (MobileNetv2) or FPN (a ResNet), under the names of github.com/NoelShin/PixelPick."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from networks import build_network
from utils.errors import InputError


def _block(found: re.Match) -> str:
    """An inverted residual: theirs is flat (convolution, batch norm, ReLU6, convolution, ...), in
    torchvision's each such triple but the last, which has no ReLU6, is a module of its own."""
    block, (triple, place) = int(found[1]), divmod(int(found[2]), 3)
    n_triples = 2 if block == 1 else 3  # the first block does not expand
    inside = f"{triple}.{place}" if triple < n_triples - 1 else f"{triple + place}"
    return f"backbone.features.{block}.conv.{inside}."


def _level(form: str) -> Callable[[re.Match], str]:
    """They number the pyramid's levels from the coarsest of four."""
    return lambda found: form.format(3 - int(found[1]))


@dataclass(frozen=True, kw_only=True)
class Original:
    """A network of theirs: its name here, the backbones that it may have, its classifier's bias,
    and how names become ours: each rule whose pattern begins a name replaces that, in order."""

    name: str
    backbones: Sequence[str]
    classifier: str
    rules: Sequence[tuple[str, str | Callable[[re.Match], str]]]

    def renamed(self, name: str) -> str:
        for pattern, ours in self.rules:
            name = re.sub(f"^(?:{pattern})", ours, name)
        return name


ORIGINALS = (
    Original(
        name="original_deeplab", backbones=("mobilenetv2",), classifier="seg_head.classifier.bias",
        rules=(
            # The same tensors a second time, as parts of the whole.
            (r"backbone\.(?:low|high)_level_features\.", "backbone.features."),
            (r"backbone\.features\.(\d+)\.conv\.(\d)\.", _block),
            (r"aspp\.aspp([1-4])\.atrous_conv\.",
             lambda found: f"aspp.convs.{int(found[1]) - 1}.0."),
            (r"aspp\.aspp([1-4])\.bn\.", lambda found: f"aspp.convs.{int(found[1]) - 1}.1."),
            (r"aspp\.global_avg_pool\.", "aspp.convs.4."),
            (r"aspp\.conv1\.", "aspp.project.0."),
            (r"aspp\.bn1\.", "aspp.project.1."),
            (r"low_level_conv\.0\.", "decoder.project."),
            (r"low_level_conv\.1\.", "decoder.project_norm."),
            (r"seg_head\.segment_head\.0\.", "decoder.conv1."),
            (r"seg_head\.segment_head\.1\.", "decoder.norm1."),
            (r"seg_head\.segment_head\.4\.", "decoder.conv2."),
            (r"seg_head\.segment_head\.5\.", "decoder.norm2."),
            (r"seg_head\.classifier\.", "decoder.classifier."),
        )),
    Original(
        name="original_FPN", backbones=("resnet50", "resnet101", "resnet34", "resnet18"),
        classifier="decoder.classifier.bias",
        rules=(
            (r"encoder\.base\.(?:prefix\.)?", "backbone."),
            (r"decoder\.lat_layer_([0-3])\.", _level("decoder.laterals.{}.")),
            (r"decoder\.upsample_blocks_([0-3])\.", _level("decoder.levels.{}.")),
            (r"(decoder\.levels\.\d\.\d\.)block\.", r"\1"),
        )),
)


def _state(content: object) -> dict[str, object]:
    """Their state dict, without the prefix of a network trained on several GPUs."""
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        return {}
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def is_original(content: object) -> bool:
    """Whether a file's content looks like a checkpoint of theirs."""
    state = _state(content)
    return any(original.classifier in state for original in ORIGINALS)


def convert_original(content: object, *, source: str) -> tuple[dict, dict[str, Tensor]]:
    """Keyword arguments for `build_network` and the state dict of that network. Raises InputError,
    naming what does not fit and the `source`."""
    theirs = _state(content)
    original = next((o for o in ORIGINALS if o.classifier in theirs), None)
    if original is None:
        raise InputError(f"{source}: is no checkpoint of PixelPick's authors: no entry `model` "
                         "with the weights of their DeepLab or FPN")
    state: dict[str, Tensor] = {}
    for name, value in theirs.items():
        ours = original.renamed(name)
        if not isinstance(value, Tensor):
            raise InputError(f"{source}: {name} is no tensor")
        if not torch.equal(state.setdefault(ours, value), value):
            raise InputError(f"{source}: {name} differs from what it should be a copy of ({ours})")
    candidates = []
    for backbone in original.backbones:
        kwargs = dict(name=original.name, backbone=backbone, width_multiplier=1, mc_dropout_p=0.2,
                      n_classes=len(state[original.renamed(original.classifier)]))
        with torch.device("meta"):
            network = build_network(**kwargs)
        kwargs["output_stride"] = network.output_stride
        expected = network.state_dict()
        counters = {name: torch.zeros((), dtype=torch.long) for name in expected
                    if name.endswith("num_batches_tracked")}
        problems = _problems(counters | state, expected)
        if not problems:
            return kwargs, {name: (counters | state)[name] for name in expected}
        candidates.append((len(problems), backbone, problems[0]))
    n, backbone, first = min(candidates)
    raise InputError(f"{source}: does not fit {original.name} with {backbone}: {n} entries differ "
                     f"({first}{', ...' if n > 1 else ''})")


def _problems(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    different = [f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
                 for name, tensor in expected.items()
                 if name in found and found[name].shape != tensor.shape]
    return ([f"{name} is missing" for name in expected if name not in found]
            + [f"{name} is unknown" for name in found if name not in expected] + different)
