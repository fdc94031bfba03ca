"""Acquisition functions: how much would the class of a pixel teach?

Each maps probabilities `(B, C, H, W)` to scores `(B, H, W)`: higher = ask first, -inf = never. The
decorator `@acquisition` makes a function a query strategy of the same name. One that needs more
than probabilities has further parameters, by these names:

    generator: a torch.Generator on the CPU, keyed by seed, round and image
    committee: a Committee; such a strategy is refused without --use_mc_dropout
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter

import torch
from torch import Tensor

ACQUISITIONS: dict[str, Callable[..., Tensor]] = {}
_OFFERED = ("generator", "committee")


def acquisition(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Register a query strategy under the function's name. Raises ValueError for a name that is
    taken and for parameters that no one fills."""
    name, (_, *more) = function.__name__, inspect.signature(function).parameters
    if name in ACQUISITIONS:
        raise ValueError(f"there is already an acquisition function {name!r}")
    if unknown := set(more) - set(_OFFERED):
        raise ValueError(f"acquisition function {name!r} needs {', '.join(sorted(unknown))}; after "
                         f"probabilities it can have {', '.join(_OFFERED)}")
    ACQUISITIONS[name] = function
    return function


def needs(strategy: str) -> list[str]:
    """What a strategy needs besides probabilities: `generator`, `committee`, both or nothing."""
    return list(inspect.signature(ACQUISITIONS[strategy]).parameters)[1:]


def score(strategy: str, probabilities: Tensor, *, generator: torch.Generator,
          committee: Committee | None = None) -> Tensor:
    """Scores `(B, H, W)` in float32 of probabilities `(B, C, H, W)`. Raises ValueError if there is
    no committee for a strategy that needs one, or if the scores have another shape."""
    offered = {"generator": generator, "committee": committee}
    needed = {name: offered[name] for name in needs(strategy)}
    if any(value is None for value in needed.values()):
        raise ValueError(f"the acquisition function {strategy!r} needs a committee")
    scores = ACQUISITIONS[strategy](probabilities, **needed)
    if scores.shape != probabilities[:, 0].shape:
        raise ValueError(f"the acquisition function {strategy!r} returned {tuple(scores.shape)} "
                         f"for {tuple(probabilities.shape)}; its scores must be (B, H, W)")
    return scores.float()


# --- of probabilities, or of what a committee says together -------------------------------------


@acquisition
def margin_sampling(probabilities: Tensor) -> Tensor:
    """Minus the margin between the two likeliest classes, in [-1, 0]."""
    first, index = probabilities.float().max(dim=1, keepdim=True)
    second = probabilities.float().scatter(1, index, -1.0).amax(dim=1)
    return second.clamp(min=0) - first.squeeze(1)


@acquisition
def least_confidence(probabilities: Tensor) -> Tensor:
    """1 minus the probability of the likeliest class, in [0, 1 - 1 / C]."""
    return 1 - probabilities.float().amax(dim=1)


@acquisition
def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy in nats, in [0, log C]; a probability of 0 adds 0."""
    return torch.special.entr(probabilities.float()).sum(dim=1)


@acquisition
def random(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1); drawn where the generator is, so that a CPU's serves every device."""
    batch, _, height, width = probabilities.shape
    drawn = torch.rand(batch, height, width, generator=generator, device=generator.device)
    return drawn.to(probabilities.device)


# --- of a committee -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Committee:
    """What the passes of a network with dropout say (query by committee).

    mean: `(B, C, H, W)`, the mean of their probabilities.
    votes: `(B, C, H, W)`, the share of passes for which a class is the likeliest.
    mean_entropy: `(B, H, W)`, the mean of their entropies in nats.
    variance: `(B, C, H, W)`, the mean squared distance of their probabilities from `mean`.
    """

    mean: Tensor
    votes: Tensor
    mean_entropy: Tensor
    variance: Tensor

    @classmethod
    def of(cls, passes: Iterable[Tensor]) -> Committee:
        """From the probabilities `(B, C, H, W)` of each pass. Only sums are kept: the memory does
        not depend on the number of passes. Raises ValueError if there is none."""
        n, mean, votes, squares, mean_entropy = 0, None, None, None, None
        for probabilities in passes:
            n, probabilities = n + 1, probabilities.float()
            if mean is None:
                mean, votes, squares = (torch.zeros_like(probabilities) for _ in range(3))
                mean_entropy = torch.zeros_like(probabilities[:, 0])
            mean += probabilities
            likeliest, index = probabilities.max(dim=1, keepdim=True)
            # A vote is 1; NaN if the network has diverged, which must not look like a certain one.
            votes.scatter_add_(1, index, likeliest / likeliest)
            mean_entropy += entropy(probabilities)
            if n > 1:  # Youngs and Cramer 1971: no difference of large sums
                squares += (n * probabilities - mean).square_().div_(n * (n - 1))
        if n == 0:
            raise ValueError("a committee needs at least one pass")
        return cls(mean=mean / n, votes=votes / n, mean_entropy=mean_entropy / n,
                   variance=squares / n)

    def of_image(self, position: int) -> Committee:
        """The same of one image of the batch, B = 1."""
        return Committee(**{field.name: getattr(self, field.name)[position:position + 1]
                            for field in fields(self)})


# Which distribution of a committee functions of probabilities are given, as in PixelPick (arXiv
# 2104.06394): soft is the mean of the probabilities, hard the histogram of the votes. Its defaults:
MC_N_STEPS, VOTE_TYPE = 20, "soft"
VOTE_TYPES: dict[str, Callable[[Committee], Tensor]] = {
    "soft": attrgetter("mean"),
    "hard": attrgetter("votes"),
}


@acquisition
def vote_entropy(probabilities: Tensor, committee: Committee) -> Tensor:
    """Entropy of the votes in nats (Dagan and Engelson 1995, without their division by a
    constant), in [0, log C], whatever the vote type."""
    return entropy(committee.votes)


@acquisition
def bald(probabilities: Tensor, committee: Committee) -> Tensor:
    """Mutual information of the class and the weights in nats (Houlsby et al. 2011, arXiv
    1112.5745): the entropy of the mean minus the mean of the entropies, in [0, log C], whatever
    the vote type. High where the passes are certain of different classes."""
    return (entropy(committee.mean) - committee.mean_entropy).clamp(min=0)


# What balent takes for zero: a variance or a distance of a mean from 0 or 1; a Beta distribution's
# a + b, which is 0 where every pass says 0 or 1; BalEnt where its reciprocal is taken.
_SMALLEST_MOMENT, _SMALLEST_SUM, _SMALLEST_BALENT = 1e-9, 1e-3, 1e-6


@acquisition
def balent(probabilities: Tensor, committee: Committee) -> Tensor:
    """Balanced entropy (Woo 2023, arXiv 2105.14559; of pixels: arXiv 2408.01694), whatever the vote
    type. The passes' probabilities of class i, of mean m_i and variance v_i, are taken for
    Beta(a_i, b_i) of these moments, and the answer i makes it Beta(a_i + 1, b_i), of differential
    entropy h_i <= 0. BalEnt = (sum_i m_i h_i + H) / (H + log 2), H the entropy of m.

    The score is 1 / BalEnt, above 1, where BalEnt >= 0, else BalEnt: what is asked first is
    undecided in a way that an answer settles; last come certain pixels, and those whose passes are
    certain of different classes."""
    mean, variance = _in_float64(committee.mean), _in_float64(committee.variance)
    h = torch.special.entr(mean).sum(dim=1)  # (B, H, W)
    m = mean.clamp(_SMALLEST_MOMENT, 1 - _SMALLEST_MOMENT)
    total = m * (1 - m) / variance.clamp(min=_SMALLEST_MOMENT) - 1  # a + b
    total = total.clamp(min=_SMALLEST_SUM)
    gained = _beta_entropy(m * total + 1, (1 - m) * total)  # (B, C, H, W)
    value = ((m * gained).sum(dim=1) + h) / (h + math.log(2))
    return torch.where(value >= 0, 1 / value.clamp(min=_SMALLEST_BALENT), value)


def _in_float64(x: Tensor) -> Tensor:
    """On the CPU where the device has no such numbers (mps)."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _beta_entropy(a: Tensor, b: Tensor) -> Tensor:
    """Differential entropy of Beta(a, b) in nats, at most 0; in float64, where its large terms
    cancel."""
    return (torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
            - (a - 1) * torch.digamma(a) - (b - 1) * torch.digamma(b)
            + (a + b - 2) * torch.digamma(a + b)).clamp(max=0)
