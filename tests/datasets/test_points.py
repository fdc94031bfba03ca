"""Points, queries and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.images import IGNORE, resize_label
from datasets.points import VOID, Points, answer, concatenate, padded, read_labels, write_labels
from datasets.queries import Query, read_query, write_query
from utils.errors import InputError
from utils.geometry import pixel_under, rescale_coordinate

NAMES = ["train/b.png", "train/a.png", "train/c.png"]
SIZES = np.array([[6, 8], [4, 8], [6, 5]])


def some_points() -> Points:
    return Points(*np.array([[0, 2, 0, 2, 2], [1, 5, 0, 3, 0], [7, 4, 0, 1, 0],
                             [3, VOID, 1, 0, 2]]))


def some_query(**kwargs) -> Query:
    pixels = [np.array([[5, 7], [0, 1]]), np.zeros((0, 2), np.int64), np.array([[2, 4]])]
    return Query(names=NAMES, sizes=SIZES, pixels=pixels, strategy="entropy", seed=7, **kwargs)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_grid_pixels_stand_for_the_pixel_under_their_centre(factor: int) -> None:
    """floor((c + .5) * H0 / H), as the formula is written."""
    under = pixel_under(np.arange(90), size_from=90, size_to=90 * factor)
    assert under.tolist() == [int(np.floor((c + 0.5) * factor)) for c in range(90)]
    uneven = pixel_under(np.arange(90), size_from=90, size_to=721)
    assert uneven.tolist() == [int(np.floor((c + 0.5) * 721 / 90)) for c in range(90)]
    assert uneven.max() <= 720


def test_rescaling_there_and_back() -> None:
    c = np.linspace(-0.5, 89.5, 50)
    there = rescale_coordinate(c, size_from=90, size_to=23)
    assert there.min() == -0.5 and there.max() == pytest.approx(22.5)
    assert rescale_coordinate(there, size_from=23, size_to=90) == pytest.approx(c)


def test_answers_come_from_the_original_pixel() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 11, (12, 16), dtype=np.uint8) for _ in range(2)]
    labels[1][8:] = IGNORE
    pixels = [np.array([[5, 7], [0, 0]]), np.array([[4, 2]])]
    points = answer(pixels, labels, np.array([[6, 8], [6, 8]]))
    assert points.label.tolist() == [labels[0][11, 15], labels[0][1, 1], VOID]
    assert points.image.tolist() == [0, 0, 1] and points.n_void == 1
    on_grid = resize_label(labels[0], (6, 8))
    assert points.label[:2].tolist() == [on_grid[5, 7], on_grid[0, 0]]


def test_labels_file_round_trip(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.csv", some_points(), names=NAMES)
    assert (tmp_path / "labels.csv").read_text().splitlines()[:2] == [
        "image,y,x,label", "train/b.png,1,7,3"]
    again = read_labels(tmp_path / "labels.csv", names=NAMES, sizes=SIZES, n_classes=11)
    for column in ("image", "y", "x", "label"):
        assert np.array_equal(getattr(again, column), getattr(some_points(), column))


def test_empty_labels_file(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.csv", concatenate([]), names=NAMES)
    assert len(read_labels(tmp_path / "labels.csv", names=NAMES, sizes=SIZES, n_classes=11)) == 0


@pytest.mark.parametrize(("row", "message"), [
    ("train/x.png,0,0,1", "no column or image .*train/x.png"),
    ("train/a.png,4,0,1", r"row 3 \(train/a.png,4,0,1\) is outside the grid"),
    ("train/a.png,-1,0,1", "outside the grid"),
    ("train/a.png,0,0,11", "has a label that is not in -1 to 10"),
    ("train/a.png,0,zero,1", "expected the columns image,y,x,label"),
    ("train/a.png,0", "expected the columns image,y,x,label"),
])
def test_bad_labels_are_refused(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(f"image,y,x,label\ntrain/b.png,0,0,1\n{row}\n")
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "labels.csv", names=NAMES, sizes=SIZES, n_classes=11)


def test_padding_keeps_every_label_but_void() -> None:
    coordinates, labels = padded(some_points(), n_images=3)
    assert coordinates.shape == (3, 2, 2) and labels.shape == (3, 2)
    assert labels.tolist() == [[3, 1], [VOID, VOID], [0, 2]]
    assert coordinates[0].tolist() == [[1, 7], [0, 0]] and coordinates[2, 0].tolist() == [3, 1]
    nothing, ignored = padded(concatenate([]), n_images=3)
    assert nothing.shape == (3, 1, 2) and (ignored == VOID).all()


def test_query_round_trip(tmp_path: Path) -> None:
    query = some_query(scores=[np.array([-0.25, -0.5]), np.zeros(0), np.array([-1e-7])],
                       predictions=[np.array([3, 1]), np.zeros(0, int), np.array([0])],
                       probabilities=[np.array([0.5, 0.6]), np.zeros(0), np.array([0.4])])
    assert write_query(tmp_path, query, max_mask_gb=2) is None
    again = read_query(tmp_path / "query.json", names=NAMES, sizes=SIZES)
    for key in ("pixels", "scores", "predictions", "probabilities"):
        for ours, theirs in zip(getattr(again, key), getattr(query, key), strict=True):
            assert ours == pytest.approx(theirs) and ours.shape == theirs.shape
    assert (again.strategy, again.seed, again.n_pixels) == ("entropy", 7, 3)


def test_query_masks_sit_top_left_and_read_back_in_sorted_order(tmp_path: Path) -> None:
    write_query(tmp_path, some_query(), max_mask_gb=2)
    masks = np.load(tmp_path / "query.npy", mmap_mode="r", allow_pickle=False)
    assert masks.shape == (3, 6, 8) and masks.dtype == bool
    assert np.argwhere(masks[0]).tolist() == [[0, 1], [5, 7]]
    # Elsewhere the masks follow the sorted names; the query follows the dataset's order.
    np.save(tmp_path / "bare.npy", masks)
    sizes = np.tile([6, 8], (3, 1))
    again = read_query(tmp_path / "bare.npy", names=NAMES, sizes=sizes)
    assert again.pixels[1].tolist() == [[0, 1], [5, 7]] and len(again.pixels[0]) == 0


@pytest.mark.parametrize(("array", "message"), [
    (np.zeros((2, 6, 8), bool), r"expected bool \(3, 6, 8\)"),
    (np.zeros((3, 6, 8), np.uint8), "expected bool"),
    (np.array([{}], dtype=object), "cannot be read"),
])
def test_foreign_masks_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "query.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=message):
        read_query(tmp_path / "query.npy", names=NAMES, sizes=SIZES)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "pixelpick-query-1"}',
                                  '{"format": "pixelpick-query-1", "images": [1]}'])
def test_broken_query_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "query.json").write_text(text)
    with pytest.raises(InputError, match="query.json"):
        read_query(tmp_path / "query.json", names=NAMES, sizes=SIZES)


def test_a_query_of_another_grid_is_refused(tmp_path: Path) -> None:
    write_query(tmp_path, some_query(), max_mask_gb=2)
    with pytest.raises(InputError, match="asked on a grid of 6x8, here it is 3x4.*--downsample"):
        read_query(tmp_path / "query.json", names=NAMES, sizes=SIZES // 2)


def test_too_large_masks_are_left_out_with_a_notice(tmp_path: Path) -> None:
    write_query(tmp_path, some_query(), max_mask_gb=2)
    notice = write_query(tmp_path, some_query(), max_mask_gb=1e-7)
    assert "--max_mask_gb" in notice and not (tmp_path / "query.npy").exists()
    assert read_query(tmp_path / "query.json", names=NAMES, sizes=SIZES).n_pixels == 3
