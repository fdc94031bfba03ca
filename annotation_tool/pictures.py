"""Image files decoded off the main thread, before they are needed; crops around a pixel."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from annotation_tool.asked import AskedImage
from datasets.images import read_image

_KEPT = 4  # decoded images in memory: the one shown, the two beside it, the one before
_OUTSIDE = (110, 110, 110)


@dataclass(frozen=True)
class Picture:
    """An image at the file's own resolution, and `fitted` into the window's canvas."""

    image: Image.Image
    fitted: Image.Image

    @property
    def scale(self) -> float:
        """Canvas pixels per pixel of the file."""
        return self.fitted.width / self.image.width


class Pictures:
    """Decodes in threads and keeps the last few. Pixels are as training sees them: no rotation by
    EXIF, alpha dropped."""

    def __init__(self, images: Sequence[AskedImage]) -> None:
        self._images = images
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self._found: OrderedDict[tuple[int, tuple[int, int]], Future[Picture]] = OrderedDict()

    def get(self, index: int, *, box: tuple[int, int]) -> Future[Picture]:
        """The image of this index, fitted into `box` (width, height). Its exception is an
        InputError if the file cannot be read."""
        key = (index, box)
        if key not in self._found:
            self._found[key] = self._pool.submit(_load, self._images[index], box)
        self._found.move_to_end(key)
        while len(self._found) > _KEPT:
            self._found.popitem(last=False)[1].cancel()
        return self._found[key]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _load(asked: AskedImage, box: tuple[int, int]) -> Picture:
    image = Image.fromarray(read_image(asked.path))
    scale = min(box[0] / image.width, box[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    how = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST
    return Picture(image, image.resize(size, how, reducing_gap=2.0 if scale < 1 else None))


def crop(image: Image.Image, *, top: int, left: int, shape: tuple[int, int],
         size: tuple[int, int]) -> Image.Image:
    """The pixels from (top, left), `shape` (rows, columns) of them, grey outside the image, at
    `size` (width, height)."""
    rows, columns = shape
    box = (max(left, 0), max(top, 0), min(left + columns, image.width),
           min(top + rows, image.height))
    piece = Image.new("RGB", (columns, rows), _OUTSIDE)
    piece.paste(image.crop(box), (box[0] - left, box[1] - top))
    how = Image.Resampling.BILINEAR if size[0] < columns else Image.Resampling.NEAREST
    return piece.resize(size, how)
