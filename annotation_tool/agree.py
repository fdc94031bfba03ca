"""How far two annotators agree: `python -m annotation_tool.agree logs/camvid_anna logs/camvid_ben`.

Compared are the pixels that both have answered: the same image path, grid, y and x. Void is an
answer like any other."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotation_tool.report import class_parser, given_classes, label_order, read_annotator
from annotation_tool.scoring import aligned, pace, percent, seconds_text
from datasets.annotations import Annotation
from datasets.spec import ClassSet
from utils.errors import InputError, run_program

_N_DISAGREEMENTS = 10  # that are printed
_N_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of two annotators, L labels.

    pairs: both answers to each pixel that both answered, by image name, y and x.
    n_only: how many pixels only the first, and only the second, has answered.
    labels: those that occur in the pairs, void last.
    table: `(L, L)` int64; rows the first one's answers, columns the second one's.
    """

    pairs: list[tuple[Annotation, Annotation]]
    n_only: tuple[int, int]
    labels: list[str]
    table: np.ndarray


def compare(first: Sequence[Annotation], second: Sequence[Annotation],
            classes: ClassSet | None = None) -> Agreement:
    """`classes` give the order of the labels. Without a common pixel `table` is `(0, 0)`."""
    of_first, of_second = ({a.pixel: a for a in answers} for answers in (first, second))
    common = sorted(of_first.keys() & of_second.keys(), key=lambda p: (p[0], p[3:], p[1:3]))
    pairs = [(of_first[pixel], of_second[pixel]) for pixel in common]
    labels = label_order([answer for pair in pairs for answer in pair], classes)
    table = np.zeros((len(labels), len(labels)), np.int64)
    for a, b in pairs:
        table[labels.index(a.label), labels.index(b.label)] += 1
    return Agreement(pairs=pairs, labels=labels, table=table,
                     n_only=(len(of_first) - len(pairs), len(of_second) - len(pairs)))


def cohens_kappa(table: np.ndarray) -> float:
    """Agreement beyond chance: `(p_o - p_e) / (1 - p_e)`, where p_o is the observed share of equal
    answers and p_e the one expected if both drew from their own label frequencies; 1 is perfect, 0
    is chance. J. Cohen, "A coefficient of agreement for nominal scales", Educational and
    Psychological Measurement 20(1), 1960.

    table: `(L, L)` counts. NaN if p_e is 1 (both gave one and the same label to every pixel)."""
    n = int(table.sum())
    by_chance = int(table.sum(axis=1) @ table.sum(axis=0))  # n^2 p_e, in exact integers
    if by_chance == n * n:
        return math.nan
    return (n * int(table.trace()) - by_chance) / (n * n - by_chance)


def kappa_interval(table: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile interval of kappa, by a seeded bootstrap over the pixels (B. Efron,
    "Bootstrap methods: another look at the jackknife", 1979). It takes pixels as independent: those
    of one image are not quite, so the true interval is rather wider.

    table: `(L, L)` counts. None where the resamples do not tell: kappa is the same in all of them
    (full agreement), or undefined in one (too few pixels)."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    cells = np.repeat(np.arange(table.size), table.ravel())  # one entry a pixel
    if len(cells) < 2:
        return None

    def kappa(sample: np.ndarray) -> float:
        return cohens_kappa(np.bincount(sample, minlength=table.size).reshape(table.shape))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # that is what None says
        values = bootstrap((cells,), kappa, n_resamples=_N_RESAMPLES, batch=50, vectorized=False,
                           method="percentile", random_state=np.random.default_rng(0))
    low, high = map(float, values.confidence_interval)
    return (low, high) if low < high else None  # NaN is not less either


# --- in words -----------------------------------------------------------------------------------


def agreement_lines(agreement: Agreement, names: tuple[str, str]) -> list[str]:
    """names: of the two annotators. There is at least one pair."""
    a, b = names
    n, n_same = len(agreement.pairs), int(agreement.table.trace())
    seconds = [seconds_text(pace(answers).mean) for answers in zip(*agreement.pairs, strict=True)]
    return [f"{n} pixels are answered by both, {agreement.n_only[0]} only by {a}, "
            f"{agreement.n_only[1]} only by {b}",
            f"the same answer: {n_same} of {n}, {percent(n_same / n)}",
            _kappa_line(agreement.table),
            f"mean seconds per pixel (of these {n}): {a} {seconds[0]}, {b} {seconds[1]}",
            f"answers of {a} (rows) and {b} (columns):", *_table_lines(agreement),
            *_disagreement_lines(agreement, names)]


def _kappa_line(table: np.ndarray) -> str:
    kappa = cohens_kappa(table)
    if math.isnan(kappa):
        return "Cohen's kappa: undefined (all answers are one and the same label)"
    try:
        interval = kappa_interval(table)
    except ImportError:  # the annotation tool is installed without scipy
        return f"Cohen's kappa: {kappa:.3f} (its interval needs scipy: pip install scipy)"
    if interval is None:
        return f"Cohen's kappa: {kappa:.3f} (no interval: too few pixels or disagreements)"
    return (f"Cohen's kappa: {kappa:.3f} (95 % interval {interval[0]:.3f} to {interval[1]:.3f}, "
            "bootstrap over pixels)")


def _table_lines(agreement: Agreement) -> list[str]:
    """Columns have the number of the label, rows its name as well."""
    numbers = [str(number) for number in range(1, len(agreement.labels) + 1)]
    return aligned([("", *numbers)] + [
        (f"{number} {label}", *map(str, row)) for number, label, row in
        zip(numbers, agreement.labels, agreement.table.tolist(), strict=True)])


def _disagreement_lines(agreement: Agreement, names: tuple[str, str]) -> list[str]:
    found = [f"  {a.image} ({a.y}, {a.x}): {names[0]} {a.label}, {names[1]} {b.label}"
             for a, b in agreement.pairs if a.label != b.label]
    left = len(found) - _N_DISAGREEMENTS
    return ([f"disagreements: {len(found)}", *found[:_N_DISAGREEMENTS]]
            + ([f"  and {left} more"] if left > 0 else []))


def _why_nothing_in_common(first: Sequence[Annotation], second: Sequence[Annotation]) -> str:
    a, b = first[0], second[0]
    if not {x.image for x in first} & {x.image for x in second}:
        return (f"no image is in both (one has {a.image}, the other {b.image}); were both asked "
                "the same images, below the same folder?")
    if not {x.pixel[:3] for x in first} & {x.pixel[:3] for x in second}:
        return (f"the grids differ ({a.h}x{a.w} and {b.h}x{b.w}); were both asked the same query?")
    return "the images are the same, the pixels are not; were both asked the same query?"


def main(argv: Sequence[str] | None = None) -> int:
    parser = class_parser("Compare the answers of two annotators.")
    parser.add_argument("folders", nargs=2, metavar="DIR", help="<dir_logs>/<dataset>_<annotator>")
    args = parser.parse_args(argv)
    paths = [Path(folder).resolve() for folder in args.folders]
    if paths[0] == paths[1]:
        raise InputError(f"both folders are {args.folders[0]}; give those of two annotators")
    classes = given_classes(args)
    first, second = (read_annotator(folder, classes=classes) for folder in args.folders)
    agreement = compare(first, second, classes)
    if not agreement.pairs:
        raise InputError(f"no pixel is answered in both {args.folders[0]} and {args.folders[1]}: "
                         f"{_why_nothing_in_common(first, second)}")
    names = tuple(path.name for path in paths)
    print("\n".join(agreement_lines(
        agreement, names if names[0] != names[1] else tuple(args.folders))))
    return 0


if __name__ == "__main__":
    run_program(main)
