"""PASCAL VOC 2012 segmentation: 20 classes and background, 255 is void; images of many sizes.

The colours are those of VOC's palette: bit k of the class index, three bits at a time, becomes bit
7 - k of red, green and blue (VOCdevkit's VOClabelcolormap)."""

from dataclasses import replace

from datasets.spec import ClassInfo, DatasetSpec, Grid, Split

_ROOT = "VOCdevkit/VOC2012"
_CLASSES = (  # (name, key)
    ("background", "k"), ("aeroplane", "a"), ("bicycle", "y"), ("bird", "i"), ("boat", "o"),
    ("bottle", "l"), ("bus", "u"), ("car", "r"), ("cat", "t"), ("chair", "h"), ("cow", "w"),
    ("dining table", "n"), ("dog", "g"), ("horse", "e"), ("motorbike", "m"), ("person", "p"),
    ("potted plant", "f"), ("sheep", "s"), ("sofa", "c"), ("train", "j"), ("tv monitor", "v"),
)


def palette_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class index in VOC's palette."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return tuple(channels)


def _split(listed: str, *, labels: str = "SegmentationClass") -> Split:
    return Split(images=f"{_ROOT}/JPEGImages", labels=f"{_ROOT}/{labels}",
                 image_endings=(".jpg",), listed=f"{_ROOT}/ImageSets/Segmentation/{listed}.txt")


VOC = DatasetSpec(
    name="voc",
    aliases=("voc2012",),
    classes=tuple(ClassInfo(name=name, key=key, colour=palette_colour(index))
                  for index, (name, key) in enumerate(_CLASSES)),
    ignore_index=255,
    grid=Grid(longer_side=400),
    splits={"train": _split("train"), "val": _split("val")},
    evaluation="val",
)

# With the annotations of the Semantic Boundaries Dataset (datasets/voc_files.py writes them).
VOC_AUGMENTED = replace(VOC, splits=VOC.splits | {
    "train": _split("trainaug", labels="SegmentationClassAug")})
