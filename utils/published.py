"""Published results, as data: PixelPick's own tables, and other work on points as supervision.

mIoU in percent, mean and standard deviation (None where it is not given).
"""

from __future__ import annotations

from dataclasses import dataclass

FULL = float("inf")  # the budget of full masks


@dataclass(frozen=True, kw_only=True)
class Published:
    """`miou`: budget in pixels per image, or FULL, -> (mean, standard deviation or None).
    `network`: the (--network_name, --backbone) here that is the same; None: no network is."""

    method: str
    dataset: str
    backbone: str
    miou: dict[float, tuple[float, float | None]]
    reference: str
    grid: str
    protocol: str
    network: tuple[str, str] | None = None
    n_runs: int | None = None

    @property
    def largest(self) -> float:
        """The largest budget of points."""
        return max(budget for budget in self.miou if budget != FULL)

    @property
    def percent_of_full(self) -> float:
        """At the largest budget."""
        return 100 * self.miou[self.largest][0] / self.miou[FULL][0]


def _series(budgets: tuple[int, ...], means: tuple[float, ...],
            stds: tuple[float, ...] | None = None) -> dict[float, tuple[float, float | None]]:
    """The last of `means` and `stds` is full supervision's."""
    return dict(zip((*budgets, FULL), zip(means, stds or (None,) * len(means), strict=True),
                    strict=True))


_NETWORKS = {"MobileNetv2": ("deeplab", "mobilenetv2"), "ResNet50": ("FPN", "resnet50")}
_TO_100, _TO_50 = (20, 40, 60, 80, 100), (10, 20, 30, 40, 50)


def _pixelpick(dataset: str, backbone: str, *, grid: str, n_runs: int,
               miou: dict[float, tuple[float, float | None]]) -> Published:
    return Published(method="PixelPick", dataset=dataset, backbone=backbone, miou=miou,
                     network=_NETWORKS[backbone], n_runs=n_runs,
                     reference="Shin, Xie, Albanie, ICCV 2021 workshops, arXiv 2104.06394",
                     grid=grid, protocol=f"best epoch, {n_runs} runs")


def _madbal(dataset: str, backbone: str,
            miou: dict[float, tuple[float, float | None]]) -> Published:
    return Published(method="MADBAL", dataset=dataset, backbone=backbone, miou=miou,
                     reference="BMVC 2023", grid="larger than PixelPick's",
                     protocol="longer training")


PUBLISHED = (
    _pixelpick("camvid", "MobileNetv2", grid="360x480", n_runs=5, miou=_series(
        _TO_100, (50.8, 53.9, 55.3, 55.2, 55.9, 58.2), (.2, .7, .5, .7, .1, .6))),
    _pixelpick("camvid", "ResNet50", grid="360x480", n_runs=5, miou=_series(
        _TO_100, (59.7, 62.3, 64.0, 64.4, 65.1, 67.8), (.9, .5, .3, .6, .3, .3))),
    _pixelpick("cityscapes", "MobileNetv2", grid="256x512", n_runs=5, miou=_series(
        _TO_100, (52.0, 54.7, 55.5, 56.1, 56.5, 61.4), (.6, .4, .6, .3, .3, .5))),
    _pixelpick("cityscapes", "ResNet50", grid="256x512", n_runs=5, miou=_series(
        _TO_100, (56.1, 60.0, 61.6, 62.3, 62.8, 68.5), (.4, .3, .4, .4, .4, .3))),
    _madbal("cityscapes", "MobileNetv2",
            _series(_TO_100, (47.5, 59.0, 61.5, 62.7, 63.6, 66.5))),
    _madbal("cityscapes", "ResNet50",
            _series(_TO_100, (51.5, 63.3, 66.7, 67.2, 68.4, 72.0))),
    _pixelpick("voc", "MobileNetv2", grid="long side 400", n_runs=3, miou=_series(
        _TO_50, (51.7, 53.9, 56.7, 56.9, 57.2, 57.9), (.2, .8, .3, .7, .3, .5))),
    _pixelpick("voc", "ResNet50", grid="long side 400", n_runs=3, miou=_series(
        _TO_50, (59.7, 65.6, 66.4, 67.2, 67.4, 69.4), (.8, .5, .2, .1, .5, .3))),
    _madbal("voc", "ResNet50", _series(_TO_50[:4], (67.0, 72.4, 73.3, 74.3, 76.1))),
)
