"""CamVid as distributed with the SegNet tutorial: 360x480, 11 classes, void is 11."""

from dataclasses import replace

from datasets.spec import ClassInfo, DatasetSpec, Grid, Split

CAMVID = DatasetSpec(
    name="camvid",
    aliases=("cv",),
    classes=(
        ClassInfo(name="sky", key="k", colour=(128, 128, 128)),
        ClassInfo(name="building", key="b", colour=(128, 0, 0)),
        ClassInfo(name="pole", key="p", colour=(192, 192, 128)),
        ClassInfo(name="road", key="r", colour=(128, 64, 128)),
        ClassInfo(name="pavement", key="v", colour=(0, 0, 192)),
        ClassInfo(name="tree", key="t", colour=(128, 128, 0)),
        ClassInfo(name="sign symbol", key="s", colour=(192, 128, 128)),
        ClassInfo(name="fence", key="f", colour=(64, 64, 128)),
        ClassInfo(name="car", key="c", colour=(64, 0, 128)),
        ClassInfo(name="pedestrian", key="d", colour=(64, 64, 0)),
        ClassInfo(name="bicyclist", key="i", colour=(0, 128, 192)),
    ),
    ignore_index=11,
    grid=Grid(size=(360, 480)),
    splits={  # as WebP the images are small enough to carry around
        name: Split(images=name, labels=f"{name}annot", image_endings=(".png", ".webp"))
        for name in ("train", "val", "test")
    },
    evaluation="test",  # as in the paper
)

# The demo's drawn street scenes (datasets/synthetic.py) come in CamVid's layout and classes.
DEMO = replace(CAMVID, name="demo", aliases=(), grid=Grid(size=(240, 320)))
