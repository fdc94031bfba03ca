"""Asking apart, by rarity, and across images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from query import main as query_main
from tests.test_query import TinyNetwork, ask, same_pixels, seven_images
from utils.errors import InputError
from utils.selection import (
    ALLOCATIONS,
    favouring_rare,
    most_of_an_image,
    quantiles,
    rarity,
    select_pixels,
)

WAYS = [{}, {"reverse_order": True}, {"top_n_percent": 0}, {"top_n_percent": 1.0}]


def choose(scores: np.ndarray, seed: int = 0, **kwargs) -> np.ndarray:
    return select_pixels(scores, rng=np.random.default_rng(seed),
                         **({"n": 6, "top_n_percent": 0.2} | kwargs))


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).permutation(1200).reshape(30, 40).astype(np.float32)


def distances(pixels: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(pixels[:, None] - others[None]).sum(axis=2))


@pytest.mark.parametrize("way", WAYS)
def test_pixels_keep_their_distance_from_each_other_and_from_those_before(scores, way) -> None:
    before = np.array([[3, 4], [20, 30]])
    for seed in range(5):
        pixels = choose(scores, seed, min_distance=6.0, asked=before, **way)
        own = distances(pixels, pixels)[~np.eye(len(pixels), dtype=bool)]
        assert pixels.shape == (6, 2) and own.min() >= 6
        assert distances(pixels, before).min() >= 6


@pytest.mark.parametrize("way", WAYS)
def test_a_distance_below_one_pixel_changes_nothing(scores, way) -> None:
    assert (choose(scores, min_distance=0.5, **way) == choose(scores, **way)).all()


def test_with_too_few_pixels_apart_the_first_others_follow(scores) -> None:
    alone = choose(scores, top_n_percent=0, n=6)
    pixels = choose(scores, top_n_percent=0, n=6, min_distance=100.0)
    assert (pixels == alone).all()  # one keeps its distance; the rest follow by their score
    assert len(choose(scores, min_distance=100.0, asked=np.array([[0, 0]]))) == 6


def test_rarity_is_a_power_of_the_number_of_labels() -> None:
    weights = rarity(np.array([0, 3, 99]), power=0.5)
    assert weights == pytest.approx([1, 0.5, 0.1])
    assert rarity(np.array([7, 7, 7]), power=2.0) == pytest.approx([1, 1, 1])
    assert rarity(np.array([7, 9]), power=1000.0).tolist() == pytest.approx([1, 0])


def test_a_rare_class_is_asked_before_a_less_certain_common_one() -> None:
    scores = np.array([[-0.9, -0.2, -0.5, -np.inf]])
    ranked = favouring_rare(scores, np.array([[1, 0, 0, 1]]), np.array([0.25, 1.0]))
    # Ranks: 2, 4, 3 of 4 (the excluded one has the first).
    assert ranked.tolist() == [[0.5, 0.25, 0.1875, -np.inf]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_not_hidden_by_their_rank(scores, bad) -> None:
    scores[3, 3] = bad
    with pytest.raises(ValueError, match="not finite"):
        choose(favouring_rare(scores, np.zeros(scores.shape, int), np.ones(1)))


def found_of(*images: np.ndarray) -> np.ndarray:
    return np.stack([quantiles(scores) for scores in images])


def test_the_image_allocation_is_even(scores) -> None:
    numbers = ALLOCATIONS["image"](np.zeros((3, 0)), n=5, top_n_percent=0.05)
    assert numbers.tolist() == [5, 5, 5] and most_of_an_image("image", n=5) == 5


def test_the_global_allocation_follows_the_uncertain_pixels() -> None:
    rng = np.random.default_rng(0)
    images = [rng.uniform(size=(30, 40)) for _ in range(4)]
    images[0] += 0.2  # 0.2 of its pixels are above all others
    numbers = ALLOCATIONS["global"](found_of(*images), n=8, top_n_percent=0.04)
    # 4 % of four images are 16 % of this one: all that is shared, up to four times 8.
    assert numbers.tolist() == [26, 2, 2, 2]
    numbers = ALLOCATIONS["global"](found_of(*images), n=8, top_n_percent=0.25)
    assert numbers.sum() == 32 and numbers[0] == max(numbers) and min(numbers) > 2
    assert ALLOCATIONS["global"](found_of(*[np.zeros((5, 5))] * 3), n=4,
                                 top_n_percent=0.05).tolist() == [4, 4, 4]


def test_the_global_allocation_respects_what_images_have() -> None:
    few = np.full((30, 40), -np.inf)
    few[0, :3] = 5.0
    none = np.full((30, 40), -np.inf)
    rest = np.random.default_rng(0).uniform(size=(30, 40))
    numbers = ALLOCATIONS["global"](found_of(few, none, rest, rest), n=8, top_n_percent=0.05)
    assert numbers[:2].tolist() == [2, 0] and numbers.tolist()[2:] == [15, 15]
    numbers = ALLOCATIONS["global"](found_of(few, none, none), n=8, top_n_percent=0.05)
    assert numbers.tolist() == [3, 0, 0]
    assert ALLOCATIONS["global"](found_of(none), n=8, top_n_percent=0.05).tolist() == [0]


# --- in a query ---------------------------------------------------------------------------------


COUNTS = np.array([1000, 30, 1, 100, 500])


@pytest.fixture
def split():
    return seven_images()


@pytest.mark.parametrize("how", [
    dict(ask_balance=0.5, class_counts=COUNTS), dict(min_distance=3.0), dict(allocate="global"),
    dict(ask_balance=1.0, class_counts=COUNTS, min_distance=2.0, allocate="global")])
def test_a_query_does_not_depend_on_its_batches(split, how) -> None:
    network = TinyNetwork()
    query, entropies = ask(network, split, batch_size=7, **how)
    assert same_pixels(query, ask(network, split, batch_size=2, **how)[0])
    plain, _ = ask(network, split)
    assert not same_pixels(query, plain)
    assert query.n_pixels == plain.n_pixels == len(entropies)
    assert [len(scores) for scores in query.scores] == [len(pixels) for pixels in query.pixels]


def test_a_balanced_query_asks_more_of_the_rare_class(split) -> None:
    network = TinyNetwork()
    plain = np.concatenate(ask(network, split)[0].predictions)
    rarest = np.bincount(plain, minlength=5).argmin()
    counts = np.full(5, 1000)
    counts[rarest] = 1
    query, _ = ask(network, split, ask_balance=0.5, class_counts=counts)
    balanced = np.concatenate(query.predictions)
    assert (balanced == rarest).sum() > (plain == rarest).sum()


def test_a_balanced_query_needs_to_know_the_labels(split) -> None:
    with pytest.raises(ValueError, match="ask_balance needs class_counts"):
        ask(TinyNetwork(), split, ask_balance=0.5)


def test_asked_pixels_keep_their_distance_from_those_of_other_rounds(split) -> None:
    earlier, _ = ask(TinyNetwork(), split, round_index=1)
    query, _ = ask(TinyNetwork(), split, round_index=2, min_distance=3.0, asked=earlier.pixels,
                   top_n_percent=0.5, n=3)
    assert query.n_pixels == 21
    assert all(distances(pixels, before).min() >= 3
               for pixels, before in zip(query.pixels, earlier.pixels, strict=True))


def test_scores_of_a_balanced_query_are_the_acquisitions_own(split) -> None:
    query, _ = ask(TinyNetwork(), split, ask_balance=1.0, class_counts=COUNTS)
    scores = np.concatenate(query.scores)
    assert (scores <= 0).all() and (scores >= -1).all()  # minus a margin, not a rank


def test_the_query_script_asks_as_the_run_did(run_train, tiny_camvid: Path,
                                              tmp_path: Path) -> None:
    how = ("--ask_balance", "0.5", "--min_distance", "3", "--allocate", "global")
    (run,) = run_train(*how).iterdir()
    argv = ["--checkpoint", str(run / "0_query" / "last.pt"), "--dir_dataset", str(tiny_camvid),
            "--exclude_void", "--dir_output"]
    assert query_main([*argv, str(tmp_path / "next")]) == 0
    assert ((tmp_path / "next" / "query.json").read_bytes()
            == (run / "1_query" / "query.json").read_bytes())
    alone = tmp_path / "alone.pt"
    alone.write_bytes((run / "0_query" / "last.pt").read_bytes())
    with pytest.raises(InputError, match="labels.csv.* are not beside it.*--ask_balance 0"):
        query_main(["--checkpoint", str(alone), *argv[2:], str(tmp_path / "other")])
    plain = ("--ask_balance", "0", "--allocate", "image")
    assert query_main(["--checkpoint", str(alone), *argv[2:], str(tmp_path / "other"), *plain]) == 0
