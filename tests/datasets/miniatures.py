"""The official layouts in miniature: real names, modes and companions of the files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.voc import VOC, palette_colour

# Every id of Cityscapes' 8-bit label maps.
CITYSCAPES_IDS = (*range(34), 255)
# Of height and width, as VOC's images are portraits and landscapes (but a fifth of them).
VOC_SIZES = ((75, 100), (100, 75), (66, 100), (75, 100), (90, 90))
VOC_TRAIN = ("2007_000032", "2007_000039", "2007_000063", "2008_000015")
VOC_VAL = ("2007_000033", "2007_000042", "2007_000061")
# SBD's own lists: VOC's images among them, and images of VOC's val list, which are left out.
SBD_TRAIN = ("2007_000032", "2007_000033", "2008_000002", "2008_000003")
SBD_VAL = ("2007_000042", "2008_000007")


def blocks(rng: np.random.Generator, values: Sequence[int], size: tuple[int, int],
           block: int = 8) -> np.ndarray:
    """A label map `size` of squares, uint8; every value occurs if there are squares enough."""
    rows, columns = (-(-n // block) for n in size)
    cells = rng.permutation(np.resize(np.array(values, np.uint8), rows * columns))
    return np.kron(cells.reshape(rows, columns), np.ones((block, block), np.uint8)
                   )[:size[0], :size[1]].copy()


def picture(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
    """An RGB image in which the values of a label map can be told apart, with noise."""
    table = rng.integers(0, 256, (256, 3))
    table[:] = [palette_colour(value) for value in range(256)]
    noise = rng.integers(-20, 21, (*label.shape, 3))
    return np.clip(table[label] + noise, 0, 255).astype(np.uint8)


def write_cityscapes(root: Path, *, n_train: int = 5, n_val: int = 3,
                     size: tuple[int, int] = (64, 128)) -> Path:
    """The unzipped leftImg8bit and gtFine."""
    rng = np.random.default_rng(0)
    for split, cities, n in (("train", ("aachen", "bochum"), n_train),
                             ("val", ("frankfurt", "munster"), n_val)):
        for i in range(n):
            city = cities[i % 2]
            name = f"{city}_{i:06}_000019"
            label = blocks(rng, CITYSCAPES_IDS, size, block=7)
            _save(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png",
                  Image.fromarray(picture(rng, label)))
            fine = root / f"gtFine/{split}/{city}"
            _save(fine / f"{name}_gtFine_labelIds.png", Image.fromarray(label))
            _save(fine / f"{name}_gtFine_instanceIds.png",
                  Image.fromarray(label.astype(np.uint16) * 1000))
            _save(fine / f"{name}_gtFine_color.png",
                  Image.fromarray(picture(rng, label)).convert("RGBA"))
            (fine / f"{name}_gtFine_polygons.json").write_text(json.dumps(
                {"imgHeight": size[0], "imgWidth": size[1], "objects": []}))
    (root / "license.txt").write_text("research only")
    return root


def label_ids_of(image: str) -> str:
    """The label map of an image of Cityscapes."""
    return image.replace("leftImg8bit/", "gtFine/", 1).replace("leftImg8bit.png",
                                                              "gtFine_labelIds.png")


def voc_label(name: str) -> np.ndarray:
    """The label map that the miniature has for an image, with borders of 255."""
    number = sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL}).index(name)
    label = blocks(np.random.default_rng(number), range(VOC.n_classes),
                   VOC_SIZES[number % len(VOC_SIZES)], block=12)
    border = np.zeros(label.shape, bool)
    border[1:] |= label[1:] != label[:-1]
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    label[border] = 255
    return label


def voc_palette(label: np.ndarray) -> Image.Image:
    image = Image.fromarray(label)
    image.putpalette([channel for value in range(256) for channel in palette_colour(value)])
    return image


def write_voc(root: Path) -> Path:
    """VOCdevkit/VOC2012 as it comes out of the tar file."""
    folder = root / "VOCdevkit" / "VOC2012"
    for name in sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL}):
        label = voc_label(name)
        _save(folder / f"JPEGImages/{name}.jpg",
              Image.fromarray(picture(np.random.default_rng(7), label)))
        if name in VOC_TRAIN + VOC_VAL:
            _save(folder / f"SegmentationClass/{name}.png", voc_palette(label))
            _save(folder / f"SegmentationObject/{name}.png", voc_palette(label))
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", VOC_TRAIN), ("val", VOC_VAL),
                         ("trainval", VOC_TRAIN + VOC_VAL)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / f"{VOC_TRAIN[0]}.xml").write_text("<annotation/>")
    return root


def write_sbd(root: Path) -> Path:
    """benchmark_RELEASE as it comes out of benchmark.tgz. Label maps are VOC's without borders,
    upside down (SBD's annotations are its own)."""
    from scipy.io import savemat

    folder = root / "benchmark_RELEASE" / "dataset"
    (folder / "cls").mkdir(parents=True)
    for split, names in (("train", SBD_TRAIN), ("val", SBD_VAL)):
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            savemat(folder / "cls" / f"{name}.mat", {"GTcls": {
                "Segmentation": sbd_label(name), "CategoriesPresent": np.array([[1]]),
                "Boundaries": np.zeros((20, 1), object)}}, do_compression=True)
    return root


def sbd_label(name: str) -> np.ndarray:
    label = voc_label(name)[::-1].copy()
    label[label == 255] = 0
    return label


def write_own(root: Path, *, n_train: int = 4, n_val: int = 3, size: tuple[int, int] = (32, 48),
              classes: int = 4, void: int = 255) -> Path:
    """{train,val}/{images,labels}/*.png, label maps hold indices and `void`."""
    rng = np.random.default_rng(1)
    for split, n in (("train", n_train), ("val", n_val)):
        for i in range(n):
            label = blocks(rng, (*range(classes), void), size)
            _save(root / split / "images" / f"{i}.png", Image.fromarray(picture(rng, label)))
            _save(root / split / "labels" / f"{i}.png", Image.fromarray(label))
    return root


def camvid_with_val(root: Path, source: Path) -> Path:
    """A copy of a data set in CamVid's layout that has a `val` folder too, as the official one."""
    shutil.copytree(source, root)
    for kind in ("", "annot"):
        (root / f"val{kind}").mkdir()
        for path in sorted((root / f"train{kind}").iterdir())[:2]:
            shutil.copy(path, root / f"val{kind}" / f"val_{path.name}")
    return root


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
