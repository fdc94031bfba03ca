"""Datasets by name. Importing this package never imports torch: the annotation tool uses it."""

from datasets.camvid import CAMVID, DEMO
from datasets.cityscapes import CITYSCAPES
from datasets.spec import ClassInfo, ClassSet, DatasetSpec, Grid, Split
from datasets.voc import VOC

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec for spec in (CAMVID, CITYSCAPES, VOC, DEMO)
}
DATASET_NAMES: dict[str, str] = {
    name: spec.name for spec in DATASETS.values() for name in (spec.name, *spec.aliases)
}

__all__ = ["DATASETS", "DATASET_NAMES", "ClassInfo", "ClassSet", "DatasetSpec", "Grid", "Split"]
