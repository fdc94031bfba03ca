"""What an annotator did: `python -m annotation_tool.report annotation_tool/logs/camvid_anna`.

Prints answers, rate, classes, the slowest pixels and, with ground truth, the score; draws a
histogram of the seconds per pixel."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from annotation_tool.class_flags import add_class_flags, chosen_classes
from annotation_tool.scoring import (
    aligned,
    check_labels,
    pace,
    pace_line,
    percent,
    score,
    score_lines,
    seconds_text,
)
from annotation_tool.store import JOURNAL
from annotation_tool.truth import GroundTruth
from datasets.annotations import SLOW_SECONDS, Annotation, read_logs
from datasets.classes import VOID_NAME
from datasets.spec import ClassSet
from utils.errors import InputError, run_program
from utils.files import write_atomically
from utils.parsing import Parser

_N_SLOWEST = 5  # pixels that are printed


def class_parser(description: str) -> Parser:
    """A parser with the flags that say which classes there are, if any."""
    parser = Parser(description=f"{description} Without --dataset_name or --classes the names are "
                    "taken from the answers.")
    add_class_flags(parser, default=None)
    return parser


def given_classes(args: argparse.Namespace) -> ClassSet | None:
    """The classes that the flags name, if they name any. Raises InputError."""
    if args.dataset_name is None and args.classes is None:
        return None
    return chosen_classes(args.dataset_name or Path(args.classes).stem, args.classes)


def read_annotator(folder: str | Path, *, classes: ClassSet | None) -> list[Annotation]:
    """The answers of one annotator's folder, at least one. Raises InputError if there are none or
    they are several annotators', and for answers that are none of `classes`, where given."""
    folder = Path(folder)
    inside = sorted(path.parent.name for path in folder.glob(f"*/**/{JOURNAL}"))
    if inside:
        raise InputError(f"{folder} is not the folder of one annotator, there are others inside: "
                         f"{', '.join(inside)}; give one of them")
    answers = [a for a in read_logs(folder) if a.label is not None]
    if not answers:
        raise InputError(f"{folder}: no answers; is it a folder <dataset>_<annotator> of "
                         "annotation_tool/logs?")
    seen = set()
    for a in answers:
        if a.pixel in seen:
            raise InputError(f"{folder}: {a.image} ({a.y}, {a.x}) is answered twice; is it the "
                             "folder of one annotator?")
        seen.add(a.pixel)
    if classes:
        check_labels(answers, classes)
    return answers


def label_order(answers: Iterable[Annotation], classes: ClassSet | None) -> list[str]:
    """The labels that occur, in the classes' order or, without any, by name; void is the last."""
    found = {a.label for a in answers}
    names = classes.class_names if classes else sorted(found - {VOID_NAME})
    return [name for name in (*names, VOID_NAME) if name in found]


def report_lines(answers: Sequence[Annotation], classes: ClassSet | None) -> list[str]:
    """Answers and rate, by class, the slowest pixels."""
    count = Counter(a.label for a in answers)
    lines = [f"{len(answers)} answers in {len({a.image for a in answers})} images, "
             f"{count[VOID_NAME]} of them void", _rate_line(answers)]
    of_label = defaultdict(list)
    for a in answers:
        of_label[a.label].append(a)
    lines += aligned([("answer", "pixels", "share", "seconds")] + [
        (label, str(count[label]), percent(count[label] / len(answers)),
         seconds_text(pace(of_label[label]).mean)) for label in label_order(answers, classes)])
    slowest = sorted(answers, key=lambda a: -a.elapsed_time)[:_N_SLOWEST]
    lines += aligned([("slowest pixels", "y", "x", "seconds", "answer", "")] + [
        (a.image, str(a.y), str(a.x), seconds_text(a.elapsed_time), a.label,
         "flagged" if a.slow else "") for a in slowest])
    return [line.rstrip() for line in lines]


def _rate_line(answers: Sequence[Annotation]) -> str:
    """Working time is all that the tool has measured up to the last answer: what was taken back,
    skipped or flagged is in it."""
    seconds = max(max(a.total_time for a in answers), sum(a.elapsed_time for a in answers))
    if not seconds:
        return "the working time is unknown"
    return (f"{60 * len(answers) / seconds:.1f} labels per minute, in {seconds / 60:.1f} minutes "
            "of work")


def save_histogram(path: Path, answers: Sequence[Annotation], *, title: str) -> None:
    """Answers by their seconds per pixel; the flagged ones only as a number. Raises InputError if
    it cannot be drawn or written."""
    try:
        from matplotlib.figure import Figure  # the annotation tool is installed without it
    except ImportError as error:
        raise InputError(f"no picture without matplotlib ({error}): pip install matplotlib"
                         ) from error
    seconds = [a.elapsed_time for a in answers if a.elapsed_time > 0 and not a.slow]
    measured = pace(answers)
    figure = Figure(figsize=(6, 4), dpi=120)
    axis = figure.subplots()
    axis.hist(seconds, bins=30, color="tab:blue")
    if measured.median is not None:
        axis.axvline(measured.median, color="black", linestyle="--",
                     label=f"median {measured.median:.2f} s")
        axis.legend()
    axis.set_xlabel(f"seconds per pixel ({measured.n_slow} over {SLOW_SECONDS:.0f} s not drawn)")
    axis.set_ylabel("answers")
    axis.set_title(title, fontsize=9)
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = class_parser("Report what an annotator answered, and how fast.")
    parser.add_argument("folder", metavar="DIR", help="<dir_logs>/<dataset>_<annotator>")
    parser.add_argument("--dir_gts", metavar="DIR", help="label maps to score the answers against")
    parser.add_argument("--output", metavar="PNG",
                        help="the histogram (default: report.png in the annotator's folder)")
    args = parser.parse_args(argv)
    classes = given_classes(args)
    if args.dir_gts and classes is None:
        raise InputError("--dir_gts needs to know which class has which number: give "
                         "--dataset_name or --classes")
    folder = Path(args.folder)
    output = Path(args.output) if args.output else folder / "report.png"
    if args.dir_gts and output.resolve().is_relative_to(Path(args.dir_gts).resolve()):
        raise InputError(f"--output {output}: nothing is written to the label maps' folder; choose "
                         "another one")
    answers = read_annotator(folder, classes=classes)
    lines = report_lines(answers, classes)
    if args.dir_gts:
        lines += score_lines(score(answers, GroundTruth(args.dir_gts, classes), classes), classes)
    else:
        lines.append(pace_line(pace(answers)))
    print("\n".join(lines))
    save_histogram(output, answers, title=f"{folder.resolve().name}: {len(answers)} answers")
    print(f"histogram of the seconds: {output}")
    return 0


if __name__ == "__main__":
    run_program(main)
