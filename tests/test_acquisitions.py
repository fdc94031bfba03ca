"""Acquisition functions on hand-made distributions, one's own, and those of committees."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import args
from query import ACQUISITIONS, acquisition
from tests.test_query import TinyNetwork, ask, seven_images
from utils.acquisition import Committee, entropy, needs, random, score
from utils.errors import InputError

UNCERTAINTIES = ("margin_sampling", "least_confidence", "entropy")

# Four classes, from certain to uniform.
DISTRIBUTIONS = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.1, 0, 0], [0.1, 0.1, 0.6, 0.2],
                              [0.4, 0.2, 0.1, 0.3], [0.25, 0.25, 0.25, 0.25]])
KNOWN = {
    "margin_sampling": [-1, -0.8, -0.4, -0.1, 0],
    "least_confidence": [0, 0.1, 0.4, 0.6, 0.75],
    "entropy": [0, 0.325083, 1.088900, 1.279854, 1.386294],
}


def as_map(distributions: Tensor) -> Tensor:
    """`(N, C)` -> `(1, C, 1, N)`."""
    return distributions.T[None, :, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- acquisition functions --------------------------------------------------------------------


def test_registry():
    assert {name: needs(name) for name in ACQUISITIONS} == {
        "margin_sampling": [], "least_confidence": [], "entropy": [], "random": ["generator"],
        "vote_entropy": ["committee"], "bald": ["committee"], "balent": ["committee"]}


@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_known_values_and_order(name):
    scores = ACQUISITIONS[name](as_map(DISTRIBUTIONS))[0, 0]
    torch.testing.assert_close(scores, torch.tensor(KNOWN[name]), atol=1e-5, rtol=0)
    assert (scores.diff() > 0).all()  # higher = ask first


@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_order_of_classes_does_not_matter(name):
    probabilities = torch.rand(2, 5, 3, 4, generator=generator()).softmax(1)
    torch.testing.assert_close(ACQUISITIONS[name](probabilities),
                               ACQUISITIONS[name](probabilities[:, [3, 0, 4, 1, 2]]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ACQUISITIONS)
def test_shape_dtype_and_zeros_and_ones(name, dtype):
    probabilities = torch.eye(4, dtype=dtype)[None, :, :, None].expand(2, 4, 4, 3).contiguous()
    scores = score(name, probabilities, generator=generator(),
                   committee=Committee.of([probabilities, probabilities]))
    assert scores.shape == (2, 4, 3) and scores.dtype == torch.float32
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_half_precision_is_computed_in_float32(name):
    """In bfloat16 itself, sums and differences would be good to 1 in 256 only."""
    probabilities = torch.rand(1, 11, 8, 8, generator=generator(1))
    halves = (10 * probabilities).softmax(dim=1).bfloat16()
    assert torch.equal(ACQUISITIONS[name](halves), ACQUISITIONS[name](halves.float()))


def test_random_is_reproducible_from_its_generator():
    probabilities = torch.full((2, 3, 20, 20), 1 / 3)
    first, again, other = (random(probabilities, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 0 and first.max() < 1 and abs(first.mean() - 0.5) < 0.05
    state = torch.get_rng_state()
    random(probabilities, generator(5))
    assert torch.equal(state, torch.get_rng_state())


# --- a strategy of one's own ------------------------------------------------------------------


@pytest.fixture
def own_strategies() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(ACQUISITIONS)
    yield
    ACQUISITIONS.clear()
    ACQUISITIONS.update(before)


def test_a_strategy_of_ones_own_is_one_decorated_function(own_strategies):
    @acquisition
    def likeliest_of_class_2(probabilities: Tensor) -> Tensor:
        return probabilities[:, 2]

    parsed = args.parse_arguments(["--dataset_name", "cv", "-qs", "likeliest_of_class_2"])
    asking = args.asking_kwargs(parsed)
    found, _ = ask(TinyNetwork(), seven_images(), **asking | {"n": 6, "top_n_percent": 0})
    assert found.strategy == "likeliest_of_class_2"
    for predictions, probabilities, scores in zip(found.predictions, found.probabilities,
                                                  found.scores, strict=True):
        assert (np.diff(scores) <= 0).all()
        assert np.array_equal(scores[predictions == 2], probabilities[predictions == 2])


def test_a_strategy_of_ones_own_may_have_a_committee_and_draw(own_strategies):
    @acquisition
    def disagreement(probabilities: Tensor, generator: torch.Generator,
                     committee: Committee) -> Tensor:
        drawn = torch.rand(probabilities[:, 0].shape, generator=generator)
        return 1 - committee.votes.amax(dim=1) + 1e-3 * drawn

    found, _ = ask(TinyNetwork(), seven_images(), strategy="disagreement", use_mc_dropout=True,
                   mc_n_steps=4)
    assert all(len(pixels) == 6 for pixels in found.pixels)
    assert {round(4 * s, 1) for scores in found.scores for s in scores.tolist()} <= {1, 2, 3}
    with pytest.raises(InputError, match="disagreement asks a committee: give --use_mc_dropout"):
        args.parse_arguments(["--dataset_name", "cv", "-qs", "disagreement"])


def test_what_cannot_be_a_strategy_is_refused(own_strategies):
    with pytest.raises(ValueError, match="already an acquisition function 'entropy'"):
        acquisition(entropy)

    def greedy(probabilities: Tensor, images: Tensor) -> Tensor:
        return images

    with pytest.raises(ValueError, match="'greedy' needs images; .* generator, committee"):
        acquisition(greedy)

    @acquisition
    def one_number(probabilities: Tensor) -> Tensor:
        return probabilities.amax()

    with pytest.raises(ValueError, match=r"'one_number' returned \(\) for \(1, 5, 20, 28\)"):
        ask(TinyNetwork(), seven_images(), strategy="one_number")


# --- what a committee says --------------------------------------------------------------------

A, B = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def committee_of(*passes: list[float]) -> Committee:
    """Passes with one distribution each, as maps of one pixel."""
    return Committee.of(as_map(torch.tensor([p])) for p in passes)


def of_committee(name: str, committee: Committee) -> float:
    (value,) = score(name, committee.mean, generator=generator(), committee=committee).flatten()
    return value.item()


def test_mean_votes_and_entropies_are_those_of_the_passes():
    passes = torch.rand(7, 2, 5, 4, 3, generator=generator()).mul(6).softmax(dim=2)
    committee = Committee.of(passes)
    torch.testing.assert_close(committee.mean, passes.mean(dim=0))
    one_hot = nn.functional.one_hot(passes.argmax(dim=2), 5).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(committee.votes, one_hot.float().mean(dim=0))
    by_torch = torch.distributions.Categorical(passes.movedim(2, -1)).entropy().mean(dim=0)
    torch.testing.assert_close(committee.mean_entropy, by_torch)
    torch.testing.assert_close(committee.of_image(1).mean, committee.mean[1:])


@pytest.mark.parametrize(("passes", "expected"), [
    # entropy of the mean, of the votes, mutual information
    ((A, A, A, A), (0, 0, 0)),
    ((A, B, A, B), (math.log(2), math.log(2), math.log(2))),  # certain, of opposite classes
    (([0.5, 0.4, 0.1],) * 3, (0.943348, 0, 0)),  # uncertain, and all alike
    (([0.6, 0.4, 0], [0.4, 0.6, 0]), (math.log(2), math.log(2), 0.020136)),
    ((A, A, A, B), (0.562335, 0.562335, 0.562335)),
    ((A, [0.8, 0.2, 0.0]), (0.325083, 0, 0.325083 - 0.500402 / 2)),
    (([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]), (math.log(3),) * 3),
])
def test_known_values_of_committees(passes, expected):
    committee = committee_of(*passes)
    found = [of_committee(name, committee) for name in ("entropy", "vote_entropy", "bald")]
    assert found == pytest.approx(expected, abs=2e-6)


def test_soft_and_hard_votes_rank_differently():
    """Two pixels: slightly opposed passes, and undecided ones that agree on the likeliest class."""
    opposed = committee_of([0.9, 0.1, 0], [0.1, 0.9, 0])
    undecided = committee_of([0.4, 0.3, 0.3], [0.4, 0.3, 0.3])
    assert of_committee("entropy", opposed) < of_committee("entropy", undecided)
    hard = [entropy(committee.votes).item() for committee in (opposed, undecided)]
    assert hard == pytest.approx([math.log(2), 0])


def test_a_committee_holds_one_pass_at_a_time():
    alive, most = weakref.WeakSet(), []

    def passes() -> Iterator[Tensor]:
        for number in range(30):
            probabilities = torch.rand(1, 5, 8, 8, generator=generator(number)).softmax(dim=1)
            alive.add(probabilities)
            most.append(len(alive))
            yield probabilities

    Committee.of(passes())
    assert max(most) <= 2


def test_no_pass_is_no_committee():
    with pytest.raises(ValueError, match="at least one pass"):
        Committee.of([])


def test_a_strategy_without_its_committee_is_refused():
    with pytest.raises(ValueError, match="'bald' needs a committee"):
        ask(TinyNetwork(), seven_images(), strategy="bald")
