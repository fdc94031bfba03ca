"""Networks by name.

A network is a module with `network(x)` -> logits `(B, C, ceil(H / 4), ceil(W / 4))`, `network(x,
points, statistics_points=...)` -> logits `(B, P, C)`, and `network.backbone`, whose contract
stands in networks/backbones.py; its class has an `output_stride`, the default. For committees
`network.decode(features, size)` is what follows the backbone, in two steps: `embed(features)` and,
from the last dropout on, `classify(embedded, size)`.
"""

from __future__ import annotations

from torch import nn

from networks.authors import OriginalDeepLab, OriginalFPN
from networks.backbones import BACKBONES, IMAGENET_WEIGHTS, OUTPUT_STRIDES
from networks.decoder import N_STATISTICS_POINTS
from networks.deeplab import DeepLabV3Plus
from networks.fpn import FPN

NETWORKS: dict[str, type[nn.Module]] = {"deeplab": DeepLabV3Plus, "FPN": FPN}
# For the checkpoints of PixelPick's authors (networks/original.py): for prediction, with logits at
# the images' own size; each has `backbones` of its own.
ORIGINAL_NETWORKS = {"original_deeplab": OriginalDeepLab, "original_FPN": OriginalFPN}


def build_network(name: str, *, backbone: str, n_classes: int, output_stride: int | None = None,
                  width_multiplier: int = 1, mc_dropout_p: float = 0.2) -> nn.Module:
    """A freshly initialised network; `name` from NETWORKS or ORIGINAL_NETWORKS, `backbone` from
    BACKBONES, `output_stride` from OUTPUT_STRIDES (None: the network's own). Raises InputError for
    a backbone that does not come in this width."""
    network = (NETWORKS | ORIGINAL_NETWORKS)[name]
    backbones = getattr(network, "backbones", BACKBONES)
    return network(
        backbone=backbones[backbone](output_stride=output_stride or network.output_stride,
                                     width_multiplier=width_multiplier),
        n_classes=n_classes, mc_dropout_p=mc_dropout_p)


__all__ = ["BACKBONES", "IMAGENET_WEIGHTS", "NETWORKS", "N_STATISTICS_POINTS",
           "ORIGINAL_NETWORKS", "OUTPUT_STRIDES", "build_network"]
