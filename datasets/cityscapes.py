"""Cityscapes, the unzipped official packages leftImg8bit and gtFine: 1024x2048, 19 classes.

Ids, train ids and colours are those of the `labels` table of the cityscapesscripts package."""

from datasets.spec import ClassInfo, DatasetSpec, Grid, Split

# (id in *_labelIds.png, name, key, colour) in the order of the train ids.
_CLASSES = (
    (7, "road", "r", (128, 64, 128)),
    (8, "sidewalk", "s", (244, 35, 232)),
    (11, "building", "b", (70, 70, 70)),
    (12, "wall", "w", (102, 102, 156)),
    (13, "fence", "f", (190, 153, 153)),
    (17, "pole", "o", (153, 153, 153)),
    (19, "traffic light", "l", (250, 170, 30)),
    (20, "traffic sign", "g", (220, 220, 0)),
    (21, "vegetation", "v", (107, 142, 35)),
    (22, "terrain", "e", (152, 251, 152)),
    (23, "sky", "k", (70, 130, 180)),
    (24, "person", "p", (220, 20, 60)),
    (25, "rider", "d", (255, 0, 0)),
    (26, "car", "c", (0, 0, 142)),
    (27, "truck", "t", (0, 0, 70)),
    (28, "bus", "u", (0, 60, 100)),
    (31, "train", "n", (0, 80, 100)),
    (32, "motorcycle", "m", (0, 0, 230)),
    (33, "bicycle", "y", (119, 11, 32)),
)
_N_IDS = 34  # 0 .. 33; -1, the number plate of the ego vehicle, is 255 in 8 bits

CITYSCAPES = DatasetSpec(
    name="cityscapes",
    aliases=("cs",),
    classes=tuple(ClassInfo(name=name, key=key, colour=colour)
                  for _, name, key, colour in _CLASSES),
    ignore_index=255,
    label_ids=dict.fromkeys((*range(_N_IDS), 255)) | {
        id_: index for index, (id_, *_) in enumerate(_CLASSES)},
    grid=Grid(size=(1024, 2048)),
    splits={
        name: Split(images=f"leftImg8bit/{name}", labels=f"gtFine/{name}", recursive=True,
                    image_endings=("_leftImg8bit.png",), label_ending="_gtFine_labelIds.png")
        for name in ("train", "val")
    },
    evaluation="val",
    reduced_copy=True,
)
