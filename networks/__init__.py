"""Networks by name.

A network is a module with `network(x)` -> logits `(B, C, ceil(H / 4), ceil(W / 4))`, `network(x,
points, statistics_points=...)` -> logits `(B, P, C)`, and `network.backbone`, whose contract
stands in networks/backbones.py.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from networks.backbones import BACKBONES, IMAGENET_WEIGHTS, OUTPUT_STRIDES
from networks.decoder import N_STATISTICS_POINTS
from networks.deeplab import DeepLabV3Plus

NETWORKS: dict[str, Callable[..., nn.Module]] = {"deeplab": DeepLabV3Plus}


def build_network(name: str, *, backbone: str, n_classes: int, output_stride: int = 16,
                  mc_dropout_p: float = 0.2) -> nn.Module:
    """A freshly initialised network; `name` from NETWORKS, `backbone` from BACKBONES."""
    return NETWORKS[name](
        backbone=BACKBONES[backbone](output_stride=output_stride), n_classes=n_classes,
        output_stride=output_stride, mc_dropout_p=mc_dropout_p)


__all__ = ["BACKBONES", "IMAGENET_WEIGHTS", "NETWORKS", "N_STATISTICS_POINTS", "OUTPUT_STRIDES",
           "build_network"]
