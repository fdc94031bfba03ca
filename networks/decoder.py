"""The decoder of DeepLabv3+, on whole maps or only on the windows around points.

A logit between pixels is a bilinear mean of 2x2 pixels of the logits map. Two 3x3 convolutions
before it see 4x4 and 6x6 pixels. So a point costs 16 evaluations of the first convolution and 4
of the second, whatever the size of the map, and the result is that of the whole map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        low = F.relu(self.project_norm(self.project(low)))
        high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([high, low], dim=1)  # (B, 256 + 48, h, w)
        x = self.dropout1(F.relu(self.norm1(self.conv1(x))))
        x = self.dropout2(F.relu(self.norm2(self.conv2(x))))
        return self.classifier(x).float()

    def at_points(self, low: Tensor, high: Tensor, points: Tensor,
                  statistics_points: Tensor | None = None) -> Tensor:
        """Logits `(B, P, C)` at `points` `(B, P, 2)`, given as (y, x) in pixels of `low`'s map.

        Equal to bilinear sampling of `forward`'s map, clamped at its border. In training, batch
        norm takes its statistics from the windows of `statistics_points` `(B, S, 2)` alone, drawn
        uniformly, whose own logits are discarded: asked pixels are no fair sample of the image.
        Raises ValueError if there are none."""
        batch, n_points = points.shape[:2]
        if statistics_points is not None:
            points = torch.cat([points, statistics_points], dim=1)  # (B, M, 2), M = P + S
        if self.training and points.shape[1] == n_points:
            raise ValueError("training needs at least one statistics point an image")
        windows = _Windows(points, low.shape[-2:])

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
        x = F.conv2d(x, self.conv1.weight)  # (N, 256, 4, 4)
        x = self.dropout1(norm_relu(self.norm1, x, WINDOW - 2))
        x = F.conv2d(x, self.conv2.weight)  # (N, 256, 2, 2)
        x = norm_relu(self.norm2, x, WINDOW - 4)
        x = self.classifier(self.dropout2(asked(x))).float()  # (B * P, C, 2, 2)
        logits = (x * asked(windows.bilinear_weights)).sum(dim=(2, 3))
        return logits.view(batch, n_points, x.shape[1])


class _Windows:
    """The 6x6 windows of a map of `size` (h, w) around `points` `(B, M, 2)`; N = B * M of them."""

    def __init__(self, points: Tensor, size: tuple[int, int]) -> None:
        self.n_images, self.size = points.shape[0], size
        points = points.flatten(0, 1)  # (N, 2)
        offsets = torch.arange(WINDOW, device=points.device) - (WINDOW - 2) // 2
        sides, indices, inside = [], [], []
        for axis, length in enumerate(size):
            coordinate = points[:, axis].clamp(0, length - 1)
            # The 2x2 pixels around a point; at the last row or column, those before it.
            corner = coordinate.floor().clamp(max=max(length - 2, 0))
            fraction = coordinate - corner
            sides.append(torch.stack([1 - fraction, fraction], dim=1))  # (N, 2)
            indices.append(corner.long()[:, None] + offsets)  # (N, 6)
            inside.append((indices[axis] >= 0) & (indices[axis] < length))
        self.bilinear_weights = (sides[0][:, :, None] * sides[1][:, None, :])[:, None]
        self._indices = torch.stack(indices, dim=1)  # (N, 2, 6): rows and columns
        self._inside = torch.stack(inside, dim=1)
        self._image = torch.arange(self.n_images, device=points.device).repeat_interleave(
            len(points) // self.n_images)  # (N,)

    @staticmethod
    def _centred(size: int) -> slice:
        margin = (WINDOW - size) // 2
        return slice(margin, margin + size)

    def inside(self, size: int) -> Tensor:
        """`(N, 1, size, size)`: which pixels of the centred windows of `size` lie on the map."""
        rows, columns = self._inside[:, :, self._centred(size)].unbind(dim=1)
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def weights(self, size: int) -> Tensor:
        """`(N, 1, size, size)`: 1 over how often a pixel is expected in windows of `size` around
        uniform points, relative to an inner pixel; 0 outside the map.

        Pixels at the border lie in fewer windows, and the zeros around the map make just them
        unusual. So weighted, the windows' mean and variance are unbiased for the map's."""
        along = []
        for axis, length in enumerate(self.size):
            # A corner stands for one pixel of points; the first and last also for the half pixel
            # between the map's outermost centres and its edge (a map of one pixel has no more).
            corners = torch.ones(max(length - 1, 1), device=self._indices.device)
            corners[0] += (length - len(corners)) / 2
            corners[-1] += (length - len(corners)) / 2
            expected = F.avg_pool1d(F.pad(corners, (size // 2, size // 2))[None], size, stride=1)[0]
            indices = self._indices[:, axis, self._centred(size)].clamp(0, length - 1)
            along.append(1 / expected[indices])  # (N, size)
        return (along[0][:, :, None] * along[1][:, None, :])[:, None] * self.inside(size)

    def gather(self, features: Tensor) -> Tensor:
        """Map `(B, C, h, w)` -> its windows `(N, C, 6, 6)`; the border repeats outside the map."""
        rows, columns = (self._indices[:, axis].clamp(0, self.size[axis] - 1) for axis in (0, 1))
        return self._lookup(features, rows, columns)

    def interpolate(self, features: Tensor) -> Tensor:
        """Map `(B, C, h', w')` of another size -> the windows `(N, C, 6, 6)` of its bilinear
        resize to this map's size; zero outside the map."""
        first, weights = zip(*(self._axis_weights(axis, features.shape[2 + axis])
                               for axis in (0, 1)), strict=True)
        span = [torch.arange(w.shape[2], device=w.device) for w in weights]
        rows, columns = (first[axis][:, None] + span[axis] for axis in (0, 1))
        patch = self._lookup(features, rows.clamp(max=features.shape[2] - 1),
                             columns.clamp(max=features.shape[3] - 1))  # (N, C, K, L)
        # (N, 6, 6, K, L) -> (N, 36, K * L): every window pixel is a mean over the patch.
        kernel = torch.einsum("nik,njl->nijkl", *weights).flatten(3).flatten(1, 2)
        values = kernel @ patch.permute(0, 2, 3, 1).flatten(1, 2)  # (N, 36, C)
        return values.unflatten(1, (WINDOW, WINDOW)).permute(0, 3, 1, 2)

    def _axis_weights(self, axis: int, length: int) -> tuple[Tensor, Tensor]:
        """For one axis: the first source index `(N,)` of each window and the weights `(N, 6, K)`
        of the K source pixels from there on."""
        indices, inside = self._indices[:, axis], self._inside[:, axis]
        ratio = length / self.size[axis]
        # As `F.interpolate` does it; see utils/geometry.py for the convention.
        source = ((indices.clamp(0, self.size[axis] - 1) + 0.5) * ratio - 0.5).clamp(0, length - 1)
        first = source[:, 0].floor().long()
        span = min(math.ceil((WINDOW - 1) * ratio) + 2, length)
        distance = (source - first[:, None])[:, :, None] - torch.arange(span, device=source.device)
        return first, (1 - distance.abs()).clamp(min=0) * inside[:, :, None]

    def _lookup(self, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """`features[image, :, rows, columns]` for rows `(N, K)`, columns `(N, L)`: `(N, C, K, L)`.

        In float32, because the gradients of overlapping windows add up here; by rows of channels,
        so that each lookup is one contiguous copy."""
        height, width = features.shape[-2:]
        table = features.float().permute(0, 2, 3, 1).flatten(0, 2)  # (B * h * w, C)
        index = (self._image[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]
        return F.embedding(index, table).permute(0, 3, 1, 2)


def _batch_norm(norm: nn.BatchNorm2d, x: Tensor, *, sample: Tensor, weights: Tensor) -> Tensor:
    """Batch norm of `x` `(N, C, k, k)` in training, whose statistics are those of `sample`
    `(M, C, k, k)` under `weights` `(M, 1, k, k)`; running statistics are updated as
    `nn.BatchNorm2d` does."""
    n = weights.sum()
    sample = sample.float()
    mean = (sample * weights).sum(dim=(0, 2, 3)) / n
    variance = ((sample - mean[:, None, None]).square() * weights).sum(dim=(0, 2, 3)) / n
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * n / (n - 1).clamp(min=1), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]
