"""The decoder of DeepLabv3+, on whole maps or only on the windows around points.

A logit between pixels is a bilinear mean of 2x2 pixels of the logits map. Two 3x3 convolutions
before it see 4x4 and 6x6 pixels. So a point costs 16 evaluations of the first convolution and 4
of the second, whatever the size of the map, and the result is that of the whole map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.windows import Windows, conv3x3
from utils.distributed import sum_over_ranks

WINDOW = 6  # of the decoder's input, a point; the 3x3 convolutions shrink it to 4 and 2
N_STATISTICS_POINTS = 24  # drawn positions an image, for batch norm's statistics in training


class PointDecoder(nn.Module):
    """Low-level features to 48 channels, two 3x3x256 convolutions, a 1x1 classifier (DeepLabv3+,
    arXiv 1802.02611, section 3.1), with dropout as in PixelPick (arXiv 2104.06394)."""

    def __init__(self, *, low_channels: int, high_channels: int, n_classes: int,
                 low_projection: int = 48, channels: int = 256, dropout_p: float = 0.5,
                 mc_dropout_p: float = 0.2) -> None:
        super().__init__()
        self.project = nn.Conv2d(low_channels, low_projection, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(low_projection)
        self.conv1 = nn.Conv2d(low_projection + high_channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.dropout1 = nn.Dropout(dropout_p)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.dropout2 = nn.Dropout(mc_dropout_p)
        self.classifier = nn.Conv2d(channels, n_classes, 1)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Features `(B, C_low, h, w)` and `(B, C_high, h', w')` -> logits `(B, C, h, w)`."""
        return self.classify(self.embed(low, high))

    def embed(self, low: Tensor, high: Tensor) -> Tensor:
        """The same features -> `(B, 256, h, w)`, what the last dropout and the classifier see."""
        low = F.relu(self.project_norm(self.project(low)))
        # In float32, because on a GPU the gradients of an enlarged pixel add up here.
        high = F.interpolate(high.float(), size=low.shape[-2:], mode="bilinear",
                             align_corners=False)
        x = torch.cat([high.to(low.dtype), low], dim=1)  # (B, 256 + 48, h, w)
        x = self.dropout1(F.relu(self.norm1(self.conv1(x))))
        return F.relu(self.norm2(self.conv2(x)))

    def classify(self, x: Tensor) -> Tensor:
        """What `embed` returns -> logits `(B, C, h, w)` in float32."""
        return self.classifier(self.dropout2(x)).float()

    def at_points(self, low: Tensor, high: Tensor, points: Tensor,
                  statistics_points: Tensor | None = None, *, at_all: bool = False) -> Tensor:
        """Logits `(B, P, C)` at `points` `(B, P, 2)`, given as (y, x) in pixels of `low`'s map.

        Equal to bilinear sampling of `forward`'s map, clamped at its border. In training, batch
        norm takes its statistics from the windows of `statistics_points` `(B, S, 2)` alone, drawn
        uniformly, whose own logits are discarded: asked pixels are no fair sample of the image.
        Where batch norm is not in training they are left out. Raises ValueError if there are none.

        at_all: `(B, P + S, C)`, at the statistics points as well."""
        batch, n_points = points.shape[:2]
        sampling = any(n.training for n in (self.project_norm, self.norm1, self.norm2))
        if statistics_points is not None and (sampling or at_all):
            points = torch.cat([points, statistics_points], dim=1)  # (B, M, 2), M = P + S
        if sampling and points.shape[1] == n_points:
            raise ValueError("training needs at least one statistics point an image")
        windows = Windows(points, low.shape[-2:], width=WINDOW)

        def asked(x: Tensor) -> Tensor:  # (B * M, ...) -> (B * P, ...)
            return x.unflatten(0, (batch, -1))[:, :n_points].flatten(0, 1)

        def drawn(x: Tensor) -> Tensor:  # (B * M, ...) -> (B * S, ...)
            return x.unflatten(0, (batch, -1))[:, n_points:].flatten(0, 1)

        def norm_relu(norm: nn.BatchNorm2d, x: Tensor, size: int) -> Tensor:
            if norm.training:
                x = _batch_norm(norm, x, sample=drawn(x), weights=drawn(windows.weights(size)))
            else:
                x = norm(x)
            return F.relu(x) * windows.inside(size)  # zero outside, as in the full convolution

        low = norm_relu(self.project_norm, self.project(windows.gather(low)), WINDOW)
        x = torch.cat([windows.interpolate(high).to(low.dtype), low], dim=1)  # (N, 304, 6, 6)
        x = conv3x3(x, self.conv1.weight)  # (N, 256, 4, 4)
        x = self.dropout1(norm_relu(self.norm1, x, WINDOW - 2))
        x = conv3x3(x, self.conv2.weight)  # (N, 256, 2, 2)
        x = norm_relu(self.norm2, x, WINDOW - 4)
        weights = windows.bilinear_weights
        if not at_all:
            x, weights = asked(x), asked(weights)
        x = self.classifier(self.dropout2(x)).float()  # (B * P, C, 2, 2)
        logits = (x * weights).sum(dim=(2, 3))
        return logits.view(batch, -1, x.shape[1])


def _batch_norm(norm: nn.BatchNorm2d, x: Tensor, *, sample: Tensor, weights: Tensor) -> Tensor:
    """Batch norm of `x` `(N, C, k, k)` in training, whose statistics are those of `sample`
    `(M, C, k, k)` under `weights` `(M, 1, k, k)`, of nn.SyncBatchNorm those of all processes;
    running statistics are updated as `nn.BatchNorm2d` does."""
    total = sum_over_ranks if isinstance(norm, nn.SyncBatchNorm) else nn.Identity()
    n = total(weights.sum())
    sample = sample.float()
    mean = total((sample * weights).sum(dim=(0, 2, 3))) / n
    centred = sample - mean[:, None, None]
    variance = total((centred.square() * weights).sum(dim=(0, 2, 3))) / n
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * n / (n - 1).clamp(min=1), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]
