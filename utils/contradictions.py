"""How strongly networks contradict answers.

The scores are those of confident learning (Northcutt, Jiang, Chuang: Confident Learning: Estimating
Uncertainty in Dataset Labels, Journal of Artificial Intelligence Research 70, 2021, arXiv
1911.00068): of the probabilities p of the C classes at a pixel and its given label y, the
self-confidence is p[y] and the margin p[y] - max over k != y of p[k]; low is suspicious. Here both
are turned round, as elsewhere in this program: higher = look first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from datasets.points import VOID, Points
from datasets.split import LoadedSplit
from utils.groups import grouped
from utils.inference import Predictor


def self_confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(K, C)`, `(K,)` -> 1 - p[y]: in 0 .. 1."""
    return 1 - probabilities[np.arange(len(labels)), labels]


def margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`(K, C)`, `(K,)` -> max over k != y of p[k], less p[y]: in -1 .. 1, above 0 where the
    likeliest class is another one."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    return others.max(axis=1) - probabilities[rows, labels]


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "self_confidence": self_confidence,
    "margin": margin,
}

# Which networks judge an answer: (the round that asked it, the last round) -> the rounds whose
# networks do; the mean of their probabilities counts.
JUDGES: dict[str, Callable[[int, int], Sequence[int]]] = {
    "last": lambda asked, last: [last],
    # The newest one that has not been trained on it; the first round's answers have none.
    "before": lambda asked, last: [asked - 1 if asked else last],
    "all": lambda asked, last: range(last + 1),
}


def probabilities_at(network: nn.Module, split: LoadedSplit, points: Points, *,
                     predictor: Predictor) -> np.ndarray:
    """Of each class at each of the K points, `(K, C)` float32."""
    of_image = grouped(points.image, len(split))
    order, found = [], []
    for batch, logits in predictor.logits(network, split, to_labels=False, exact=True):
        for index, of_one in zip(batch.tolist(), logits, strict=True):  # (C, H, W)
            mine = of_image[index]
            there = of_one[:, points.y[mine], points.x[mine]].T  # (k, C)
            order.append(mine)
            found.append(there.softmax(dim=1).cpu().numpy())
    probabilities = np.concatenate(found)
    probabilities[np.concatenate(order)] = probabilities.copy()
    return probabilities


def judged(of_round: dict[int, np.ndarray], rounds: np.ndarray, *, judge: str,
           last: int) -> np.ndarray:
    """The probabilities `(K, C)` that count for points asked in `rounds` `(K,)`, of those of each
    round's network, `(K, C)` each."""
    result = np.zeros_like(next(iter(of_round.values())))
    for asked in np.unique(rounds).tolist():
        mine = rounds == asked
        result[mine] = np.mean([of_round[r][mine] for r in JUDGES[judge](asked, last)], axis=0)
    return result


def judging_rounds(judge: str, last: int) -> list[int]:
    """The rounds whose networks are needed."""
    return sorted({r for asked in range(last + 1) for r in JUDGES[judge](asked, last)})


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Contradicted answers, the most suspicious first.

    index: `(n,)` their positions among the points. Of each `(n,)`: score, the class that the
    networks predict, its probability, and the probability of the given label."""

    index: np.ndarray
    score: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    label_probability: np.ndarray


def rank(probabilities: np.ndarray, points: Points, *, score: str, min_confidence: float,
         n: int | None = None, left_out: np.ndarray | None = None) -> Ranking:
    """The `n` answers (None: all) of highest score among those where another class is predicted and
    the other classes have at least `min_confidence` together. Void answers, which no network can
    confirm, and those of the mask `left_out` `(K,)` are none of them. Equal scores stay in the
    order of asking."""
    known = points.label != VOID
    labels = np.where(known, points.label, 0)
    predicted, confidence = probabilities.argmax(axis=1), self_confidence(probabilities, labels)
    candidate = known & (predicted != labels) & (confidence >= min_confidence)
    if left_out is not None:
        candidate &= ~left_out
    scores = SCORES[score](probabilities, labels)
    index = np.flatnonzero(candidate)
    index = index[np.argsort(-scores[index], kind="stable")][:n]
    return Ranking(index=index, score=scores[index], predicted=predicted[index],
                   probability=probabilities[index].max(axis=1),
                   label_probability=probabilities[index, labels[index]])
