"""Ground truth to score answers against, where a folder of label maps is given."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.annotations import Annotation
from datasets.classes import VOID_NAME
from datasets.images import IGNORE, read_label
from datasets.spec import ClassSet
from utils.errors import InputError
from utils.geometry import file_pixel

_KEPT = 4  # label maps in memory


class GroundTruth:
    """The label maps of a folder, PNG files called as their images: below the folder by the
    image's path, or by the end of it that is there (`b/c.png` or `c.png` for `a/b/c.jpg`)."""

    def __init__(self, dir_gts: str | Path, classes: ClassSet) -> None:
        self._folder, self._classes = Path(dir_gts), classes
        self._maps: OrderedDict[str, np.ndarray | None] = OrderedDict()
        if not self._folder.is_dir():
            raise InputError(f"no folder {dir_gts}; give the label maps' folder with --dir_gts")

    def label(self, pixel: Annotation) -> str | None:
        """The class name or "void" of the label map's pixel under the asked one; None if the image
        has no label map. Raises InputError if the map cannot be used."""
        label_map = self._map(pixel.image)
        if label_map is None:
            return None
        value = label_map[file_pixel(pixel.y, pixel.x, grid=(pixel.h, pixel.w),
                                     size=label_map.shape)]
        return VOID_NAME if value == IGNORE else self._classes.class_names[value]

    def verdict(self, pixel: Annotation, label: str) -> str:
        """What is said of an answer to practise: "" where there is no truth, or it is void; what
        is wrong with the label map if it cannot be used (the answer is saved regardless)."""
        try:
            true = self.label(pixel)
        except InputError as error:
            return str(error)
        if true in (None, VOID_NAME):
            return ""
        return "right" if true == label else f"wrong: it was {true}, not {label}"

    def _map(self, image: str) -> np.ndarray | None:
        if image not in self._maps:
            parts = PurePosixPath(image).with_suffix(".png").parts
            paths = (self._folder.joinpath(*parts[start:]) for start in range(len(parts)))
            path = next((path for path in paths if path.exists()), None)
            self._maps[image] = path and read_label(path, spec=self._classes)
            if len(self._maps) > _KEPT:
                self._maps.popitem(last=False)
        return self._maps[image]
