"""The last network of a run on the validation split, and what the label maps hold; both are kept as
JSON in the report's folder, so that a second report need not compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.caches import Cache
from datasets.images import IGNORE, resize_label
from datasets.prepare import prepare
from datasets.split import LoadedSplit, load_split
from utils.calibration import Calibration, Reliability, reliability_of
from utils.device import select_autocast, upload
from utils.errors import InputError
from utils.files import read_json, write_json
from utils.metrics import ConfusionMatrix, segmentation_scores
from utils.models import Model
from utils.progress import track

_FORMAT = "pixelpick-report-1"
_DEBUG_IMAGES = 8  # of a split, with --debug


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """confusion: `(C, C)`; rows are true classes."""

    split: str
    confusion: np.ndarray
    reliability: Reliability

    @property
    def miou(self) -> float:
        return segmentation_scores(self.confusion)["miou"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where a run's images are, and how its flags say they are read. `folder`: None where there is
    no such place any more."""

    folder: Path | None
    flags: dict
    n_workers: int

    @classmethod
    def of(cls, flags: dict, *, dir_dataset: str | None, n_workers: int) -> Data:
        """Of a run's flags; `dir_dataset`: where its images are now, if not where it read them."""
        folder = Path(dir_dataset or flags.get("dir_dataset") or "")
        there = folder.is_dir() and folder != Path("")
        return cls(folder=folder.resolve() if there else None, n_workers=n_workers,
                   flags=flags | ({"dir_dataset": dir_dataset} if dir_dataset else {}))

    def load(self, model: Model, split: str, *, with_labels: bool) -> LoadedSplit:
        """Raises InputError if it is not there. Nothing is downloaded for a report."""
        spec, downsample = model.spec, model.config["downsample"]
        if self.folder is None:
            raise InputError(f"no folder {self.flags.get('dir_dataset')}; --dir_dataset names "
                             "where the images are now")
        if split not in spec.splits:
            raise InputError(f"{spec.name} has no split {split}")
        listed = spec.splits[split].listed
        if listed and not (self.folder / listed).exists():
            raise InputError(f"{self.folder} has no {listed}; --dir_dataset names another place")
        folder = self.folder
        if split == "train" or not self.flags.get("eval_full"):
            folder = prepare(spec, dir_dataset=folder, downsample=downsample,
                             n_workers=self.n_workers, splits={split: with_labels})
        training = {"n_images": model.config["n_images"], "seed": model.config["seed"]}
        return load_split(spec, split, dir_dataset=folder, grid=spec.grid.divided(downsample),
                          n_workers=self.n_workers, with_labels=with_labels,
                          limit=_DEBUG_IMAGES if self.flags.get("debug") else None,
                          cache=Cache(kind="none"), **training if split == "train" else {})


def evaluate(model: Model, data: Data, *, cache: Path, key: str) -> Evaluation:
    """`key`: what the result belongs to, besides the data's folder. Raises InputError without
    data."""
    def compute() -> dict:
        split = data.load(model, model.spec.evaluation, with_labels=True)
        confusion = ConfusionMatrix(model.spec.n_classes, ignore_index=IGNORE, device=model.device)
        calibration = Calibration(ignore_index=IGNORE, device=model.device)
        predictor = model.predictor(batch_size=data.flags.get("eval_batch_size", 8))
        autocast = select_autocast(data.flags.get("amp", "auto"), model.device)
        batches = list(split.batches(predictor.batch_size))
        with autocast():  # as train.py evaluates
            for index, logits in track(predictor.logits(model.network, split, to_labels=True),
                                       len(batches), description="validation", unit="batch"):
                labels = upload(np.stack([split.labels[i] for i in index]), model.device)
                confusion.update(logits.argmax(dim=1), labels)
                calibration.update(logits.softmax(dim=1), labels)
        return {"confusion": confusion.compute().tolist(),
                "calibration": calibration.sums.tolist()}

    content = _cached(cache, compute, key=key, data=data)
    return Evaluation(split=model.spec.evaluation,
                      confusion=np.array(content["confusion"], np.int64),
                      reliability=reliability_of(np.array(content["calibration"])))


def pixels_by_class(model: Model, data: Data, *, cache: Path) -> np.ndarray:
    """How many pixels of the training images' grids are of each class, `(C,)`. Raises InputError
    without label maps."""
    def compute() -> dict:
        split = data.load(model, "train", with_labels=True)
        counts = np.zeros(256, np.int64)
        for label, size in track(zip(split.labels, split.sizes, strict=True), len(split),
                                 description="label maps", unit="image"):
            counts += np.bincount(resize_label(label, tuple(size)).ravel(), minlength=256)
        return {"pixels": counts[: model.spec.n_classes].tolist()}

    config = model.config
    key = f"{config['dataset']} {config['downsample']} {config['n_images']} {config['seed']}"
    return np.array(_cached(cache, compute, key=key, data=data)["pixels"], np.int64)


def _cached(path: Path, compute: Callable[[], dict], *, key: str, data: Data) -> dict:
    """What the file has of the same key and data (of any data if they are not at hand)."""
    about = {"format": _FORMAT, "key": key, "data": str(data.folder or "")}
    if path.exists():
        try:
            content = read_json(path)
        except InputError:
            content = None  # half a file of something else: written anew
        if isinstance(content, dict) and (content.get("format"), content.get("key")) == (
                _FORMAT, key) and (data.folder is None or content.get("data") == about["data"]):
            return content
    with torch.inference_mode():
        content = about | compute()
    write_json(path, content, indent=None)
    return content
