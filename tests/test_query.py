"""The choice of pixels, from scores and with a network."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import query
from datasets.images import IGNORE
from datasets.labellers import void_masks
from datasets.queries import Query
from datasets.split import LoadedSplit
from query import earlier_queries, excluding, initial_query, next_query, select_pixels
from utils.errors import InputError
from utils.inference import Predictor

# --- selection --------------------------------------------------------------------------------


def flat(pixels: np.ndarray, width: int = 20) -> list[int]:
    return (pixels[:, 0] * width + pixels[:, 1]).tolist()


def choose(scores: np.ndarray, seed: int, **kwargs) -> np.ndarray:
    return select_pixels(scores, rng=np.random.default_rng(seed),
                         **({"n": 5, "top_n_percent": 0.05} | kwargs))


@pytest.fixture
def scores() -> np.ndarray:
    """20x20, all different: 0 .. 399 in random places."""
    return np.random.default_rng(0).permutation(400).reshape(20, 20).astype(np.float32)


WAYS = [{}, {"reverse_order": True}, {"top_n_percent": 0}, {"top_n_percent": 1.0}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n_free", [396, 200, 12, 5])
def test_excluded_pixels_are_never_chosen(scores, n_free, way):
    """Also where they would be the best, and where the 5 % have to hold less."""
    scores[scores >= n_free] = -np.inf
    for seed in range(20):
        pixels = choose(scores, seed, **way)
        assert pixels.shape == (5, 2) and pixels.dtype == np.int64
        assert len(set(flat(pixels))) == 5
        assert np.isfinite(scores[tuple(pixels.T)]).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n_free", [3, 1, 0])
def test_fewer_free_pixels_than_asked(scores, n_free, way):
    scores[scores >= n_free] = -np.inf
    with pytest.warns(UserWarning, match=f"only {n_free} pixels .* not 5"):
        pixels = choose(scores, 0, **way)
    assert pixels.shape == (n_free, 2)
    assert sorted(scores[tuple(pixels.T)].tolist()) == list(range(n_free))


@pytest.mark.parametrize("way", WAYS)
def test_enough_pixels_warn_of_nothing_and_are_different_ones(scores, way):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (1, 20, 399, 400):
            assert len(set(flat(choose(scores, 0, n=n, **way)))) == n


def test_top_n_percent_0_takes_the_best_in_order(scores):
    for seed in (0, 1):
        pixels = choose(scores, seed, top_n_percent=0)
        assert scores[tuple(pixels.T)].tolist() == [399, 398, 397, 396, 395]


def test_five_percent_of_the_pixels_are_drawn_from_uniformly(scores):
    """Each of the best 20 with probability 1/4, and none else."""
    n_draws = 400
    chosen = np.stack([scores[tuple(choose(scores, seed).T)] for seed in range(n_draws)])
    assert chosen.min() == 380
    counts = np.bincount(chosen.ravel().astype(int) - 380, minlength=20)
    assert np.abs(counts - n_draws / 4).max() < 5 * np.sqrt(n_draws / 4 * 3 / 4)
    assert np.abs(chosen.mean(axis=0) - 389.5).max() < 1.5  # nor does the order follow the score


def test_reverse_order_takes_the_best_of_a_random_five_percent(scores):
    """The k-th largest of 20 out of 400 different values is 401 (21 - k) / 21 - 1 on average."""
    n_draws = 400
    chosen = np.stack([scores[tuple(choose(scores, seed, reverse_order=True).T)]
                       for seed in range(n_draws)])
    assert (np.diff(chosen, axis=1) < 0).all()
    expected = 401 * (21 - np.arange(1, 6)) / 21 - 1
    assert np.abs(chosen.mean(axis=0) - expected).max() < 5 * chosen.std(axis=0).max() / 20


def test_small_share_is_widened_to_the_pixels_asked(scores):
    pixels = choose(scores, 0, n=30, top_n_percent=0.01)
    assert sorted(scores[tuple(pixels.T)]) == list(range(370, 400))


def test_five_percent_are_of_the_image_whatever_is_excluded(scores):
    """Excluding pixels that would not be chosen changes nothing, neither pool nor draw."""
    fewer = np.where(scores < 300, -np.inf, scores)
    for seed in range(20):
        assert np.array_equal(choose(scores, seed), choose(fewer, seed))


@pytest.mark.parametrize("way", WAYS)
def test_choice_depends_on_the_generator_alone(scores, way):
    before = scores.copy()
    assert np.array_equal(choose(scores, 3, **way), choose(scores, 3, **way))
    assert np.array_equal(scores, before)
    if way.get("top_n_percent") != 0:
        assert not np.array_equal(choose(scores, 3, **way), choose(scores, 4, **way))


@pytest.mark.parametrize("way", WAYS)
def test_constant_scores_favour_no_corner(way):
    pixels = np.concatenate([choose(np.zeros((20, 20)), seed, **way) for seed in range(200)])
    assert np.abs(pixels.mean(axis=0) - 9.5).max() < 5 * 5.77 / np.sqrt(1000)
    assert len(set(flat(pixels))) > 300


@pytest.mark.parametrize("way", WAYS)
def test_tiny_change_of_scores_moves_at_most_one_pixel(scores, way):
    """What makes the choice the same for every batch size."""
    changed = scores.copy()
    changed[scores == 380] += 1e-3
    for seed in range(20):
        first, second = choose(scores, seed, **way), choose(changed, seed, **way)
        assert len(set(flat(first)) ^ set(flat(second))) <= 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("way", WAYS)
def test_scores_that_are_not_finite_are_refused(scores, bad, way):
    scores[7, 7] = bad
    with pytest.raises(ValueError, match="finite"):
        choose(scores, 0, **way)


# --- queries ----------------------------------------------------------------------------------


class TinyNetwork(nn.Module):
    """Stride 4, five classes; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8),
                                    nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(8, 5, 1))
        nn.init.normal_(self.layers[-1].weight, std=2)
        self.seen: list[Tensor] = []

    def backbone(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.layers[:2](x)

    def embed(self, features: Tensor) -> Tensor:
        return features

    def classify(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.layers[2:](x)

    def decode(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        return self.classify(self.embed(features), size)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.backbone(x), x.shape[-2:])


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
SIZE = (24, 32)


def seven_images() -> LoadedSplit:
    """Seven images on two grids; the label maps have twice their resolution."""
    rng = np.random.default_rng(1)
    sizes = np.array([SIZE, SIZE, (20, 28), SIZE, (20, 28), SIZE, SIZE])
    labels = [rng.choice([0, 1, 2, IGNORE], (2 * h, 2 * w)).astype(np.uint8) for h, w in sizes]
    return LoadedSplit(names=[f"train/{i}.png" for i in range(7)], sizes=sizes, labels=labels,
                       images=rng.integers(0, 256, (7, *SIZE, 3), np.uint8))


@pytest.fixture
def split() -> LoadedSplit:
    return seven_images()


def ask(network: nn.Module, split: LoadedSplit, *, batch_size: int = 3,
        excluded: list[np.ndarray] | None = None, **kwargs) -> tuple[Query, np.ndarray]:
    predictor = Predictor(device=torch.device("cpu"), batch_size=batch_size, mean=MEAN, std=STD)
    return next_query(network, split, predictor=predictor, **(dict(
        strategy="margin_sampling", n=6, top_n_percent=0.05, reverse_order=False, seed=0,
        round_index=1, excluded=excluded or [np.zeros(size, bool) for size in split.sizes])
        | kwargs))


def same_pixels(first: Query, second: Query) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.pixels, second.pixels, strict=True))


PLAIN = ("margin_sampling", "least_confidence", "entropy", "random")
COMMITTEES = [
    {"use_mc_dropout": True, "mc_n_steps": 5, "strategy": strategy, "vote_type": vote_type}
    for strategy, vote_type in [*((name, "soft") for name in PLAIN), ("entropy", "hard"),
                                ("bald", "soft"), ("vote_entropy", "soft"), ("balent", "soft")]]


@pytest.mark.parametrize("reverse_order", [False, True])
@pytest.mark.parametrize("how", [*({"strategy": name} for name in PLAIN), *COMMITTEES])
def test_next_query_depends_on_no_batch_and_no_other_image(split, how, reverse_order):
    network, how = TinyNetwork(), how | {"reverse_order": reverse_order}
    query, entropies = ask(network, split, **how)
    for batch_size in (1, 2, 7):
        assert same_pixels(query, ask(network, split, batch_size=batch_size, **how)[0])
    chosen = [5, 2, 3]
    part, part_entropies = ask(network, split.subset(chosen), **how)
    assert part.names == [split.names[i] for i in chosen]
    for position, index in enumerate(chosen):
        assert np.array_equal(part.pixels[position], query.pixels[index])
        np.testing.assert_allclose(part_entropies.reshape(3, 6)[position],
                                   entropies.reshape(7, 6)[index], rtol=1e-5)


@pytest.mark.parametrize("change", [{"seed": 1}, {"round_index": 2}])
@pytest.mark.parametrize("how", [{}, {"strategy": "random"}, {"use_mc_dropout": True}])
def test_another_seed_or_round_asks_others(split, change, how):
    network = TinyNetwork()
    assert not same_pixels(ask(network, split, **how)[0],
                           ask(network, split, **how, **change)[0])


def test_what_a_query_says(split):
    """Scores, predictions, probabilities and entropies are those at the asked pixels."""
    network = TinyNetwork()
    query, entropies = ask(network, split, strategy="least_confidence", top_n_percent=0)
    assert query.strategy == "least_confidence" and query.seed == 0
    network.eval()
    for i, (height, width) in enumerate(split.sizes):
        x = torch.from_numpy(split.images[i, :height, :width]).permute(2, 0, 1)[None] / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        with torch.no_grad():
            logits = nn.functional.interpolate(network(x), (height, width), mode="bilinear")
        probabilities = logits.softmax(dim=1)[0]
        y, x = query.pixels[i].T
        p, prediction = probabilities[:, y, x].max(dim=0)
        best = probabilities.amax(dim=0).flatten().sort().values[:6]  # the least confident
        np.testing.assert_allclose(query.probabilities[i], best, atol=1e-5)
        np.testing.assert_allclose(query.probabilities[i], p, atol=1e-5)
        np.testing.assert_allclose(query.scores[i], 1 - p, atol=1e-5)
        assert np.array_equal(query.predictions[i], prediction)
        at = torch.distributions.Categorical(probabilities[:, y, x].T).entropy()
        np.testing.assert_allclose(entropies.reshape(7, 6)[i], at, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_pool_is_never_augmented_and_the_network_left_as_it_was(split, training):
    network = TinyNetwork().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    reads = []
    for _ in range(2):
        network.seen.clear()
        query, _ = ask(network, split, batch_size=1)
        reads.append((list(network.seen), query))
    assert same_pixels(reads[0][1], reads[1][1])
    for first, second in zip(reads[0][0], reads[1][0], strict=True):
        assert torch.equal(first, second)
    full = next(x for x in reads[0][0] if x.shape[2:] == SIZE)
    shown = (full[0].permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)) * 255
    assert np.array_equal(shown.round().numpy(), split.images[0])
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_excluded_pixels_are_asked_by_no_query(split):
    """Round after round until nothing is left; void is never asked."""
    network, excluded = TinyNetwork(), void_masks(split)
    for mask, label, size in zip(excluded, split.labels, split.sizes, strict=True):
        assert mask.shape == tuple(size) and np.array_equal(mask, label[1::2, 1::2] == IGNORE)
    n_free = [int((~mask).sum()) for mask in excluded]
    query = initial_query(split, n=200, excluded=excluded, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last round has fewer
        for round_index in range(1, 5):
            for mask, pixels in zip(excluded, query.pixels, strict=True):
                assert not mask[tuple(pixels.T)].any()
            excluded = excluding(excluded, query.pixels)
            query, entropies = ask(network, split, excluded=excluded, n=200,
                                   round_index=round_index)
            n_free = [max(n - 200, 0) for n in n_free]
            assert [len(pixels) for pixels in query.pixels] == [min(n, 200) for n in n_free]
            assert len(entropies) == query.n_pixels
    assert query.n_pixels == 0


def test_initial_query_is_uniform_and_keyed_by_image(split):
    excluded = void_masks(split)
    query, again, other = (initial_query(split, n=6, excluded=excluded, seed=s) for s in (0, 0, 1))
    assert [pixels.shape for pixels in query.pixels] == [(6, 2)] * 7
    assert same_pixels(query, again) and not same_pixels(query, other)
    part = initial_query(split.subset([4, 1]), n=6, excluded=[excluded[4], excluded[1]], seed=0)
    assert np.array_equal(part.pixels[0], query.pixels[4])
    assert np.array_equal(part.pixels[1], query.pixels[1])

    nothing = [np.zeros(size, bool) for size in split.sizes]
    places = np.concatenate([(pixels + 0.5) / size for seed in range(30) for pixels, size in zip(
        initial_query(split, n=6, excluded=nothing, seed=seed).pixels, split.sizes, strict=True)])
    assert np.abs(places.mean(axis=0) - 0.5).max() < 5 * 0.289 / np.sqrt(len(places))


def test_only_the_choosing_threads_wait_for_scores(split, monkeypatch):
    """So that the network can go on with the next batch, on a GPU."""
    class Watched(query.Download):
        def numpy(self) -> np.ndarray:
            waited.append(threading.current_thread() is threading.main_thread())
            return super().numpy()

    waited: list[bool] = []
    monkeypatch.setattr(query, "Download", Watched)
    ask(TinyNetwork(), split)
    assert waited == [False] * 7


def test_diverged_network_is_named_as_bad_input(split):
    network = TinyNetwork()
    network.layers[-1].bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"^train/\d.png: .*diverge"):
        ask(network, split)


def test_earlier_queries(tmp_path: Path):
    for number in (0, 2, 3, 10):  # round 1 was never asked
        (tmp_path / f"{number}_query").mkdir()
        (tmp_path / f"{number}_query" / "query.json").touch()
    found = earlier_queries(tmp_path / "3_query" / "best.pt")
    assert found == [tmp_path.resolve() / f"{number}_query" / "query.json" for number in (0, 2, 3)]
    assert len(earlier_queries(tmp_path / "10_query" / "last.pt")) == 4
    assert earlier_queries(tmp_path / "best.pt") == []
