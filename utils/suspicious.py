"""Which answers of a run its networks contradict: `python -m utils.suspicious RUN`.

Writes `suspicious.html` (a list with crops), `suspicious.csv` and `query.json` (for the annotation
tool) to `suspicious` in the run's folder, and prints the command for the second look. After it,
`python -m utils.suspicious RUN --apply` writes a new run with the corrected answers, all in its
first round, and prints the command that trains it. The run itself and the annotators' folders stay
as they are: they are the record of what was answered and trained on."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.caches import Cache
from datasets.labellers import launch_command
from datasets.queries import Query, load_query, write_query
from datasets.spec import DatasetSpec
from utils.answered import (
    Answered,
    annotators_of,
    checkpoint_of,
    finished_round,
    read_answered,
    read_record,
)
from utils.contradictions import Ranking, judged, judging_rounds, probabilities_at, rank
from utils.corrections import corrected_flags, looked_at, read_second_look, write_corrected
from utils.device import select_device
from utils.errors import InputError, run_program
from utils.files import write_csv
from utils.flags import suspicious_parser
from utils.models import load_model
from utils.suspicious_page import Entry, write_page

_COLUMNS = ("rank", "image", "y", "x", "round", "label", "predicted", "score",
            "predicted_probability", "label_probability", "annotator")


def judge(run: Path, flags: dict, *, last: int, judges: Sequence[str], dir_dataset: str | Path,
          device_name: str, batch_size: int,
          n_workers: int) -> tuple[DatasetSpec, Answered, list[np.ndarray]]:
    """The answers of a run up to round `last`, and for each of `judges` (keys of JUDGES) the
    probabilities `(K, C)` of the classes there. Raises InputError."""
    device = select_device(device_name)
    split = answered = spec = None
    of_round = {}
    for r in sorted({r for name in judges for r in judging_rounds(name, last)}):
        path = checkpoint_of(run, r)
        if not path.exists():
            raise InputError(f"no {path}, the network of round {r}; with --networks last only the "
                             "last round's is needed")
        model = load_model(path, device=device)
        if split is None:
            spec = model.spec
            split = model.load_train_split(dir_dataset, n_workers=n_workers, with_labels=False,
                                           cache=Cache(kind="none", device=device))
            answered = read_answered(run, flags=flags, last=last, names=split.names,
                                     sizes=split.sizes, n_classes=spec.n_classes)
            if not len(answered.points):
                raise InputError(f"{run} has no answers")
        of_round[r] = probabilities_at(model.network, split, answered.points,
                                       predictor=model.predictor(batch_size=batch_size))
    return spec, answered, [judged(of_round, answered.rounds, judge=name, last=last)
                            for name in judges]


def query_of(answered: Answered, ranking: Ranking, *, seed: int) -> Query:
    """The listed pixels: images by their most suspicious one, in an image likewise."""
    images = answered.points.image[ranking.index]
    order = list(dict.fromkeys(images.tolist()))
    mine = [np.flatnonzero(images == image) for image in order]
    places = np.stack([answered.points.y, answered.points.x], axis=1)[ranking.index]

    def by_image(values: np.ndarray) -> list[np.ndarray]:
        return [values[of_image] for of_image in mine]

    return Query(names=[answered.names[image] for image in order], sizes=answered.sizes[order],
                 strategy="suspicious", seed=seed, pixels=by_image(places),
                 scores=by_image(ranking.score), predictions=by_image(ranking.predicted),
                 probabilities=by_image(ranking.probability))


def write_list(folder: Path, answered: Answered, ranking: Ranking, annotators: Sequence[str], *,
               spec: DatasetSpec, dir_dataset: str | Path, title: str, paragraphs: Sequence[str],
               commands: Sequence[tuple[str, str]], seed: int) -> None:
    entries, rows = [], []
    for number, (i, annotator) in enumerate(zip(ranking.index.tolist(), annotators, strict=True)):
        image, y, x = answered.key(i)
        entry = Entry(
            path=Path(dir_dataset) / image, image=image, y=y, x=x, annotator=annotator,
            grid=tuple(answered.sizes[answered.points.image[i]].tolist()),
            round_index=int(answered.rounds[i]), given=spec.classes[answered.points.label[i]],
            predicted=spec.classes[ranking.predicted[number]],
            probability=float(ranking.probability[number]),
            given_probability=float(ranking.label_probability[number]))
        entries.append(entry)
        rows.append((number + 1, image, y, x, entry.round_index, entry.given.name,
                     entry.predicted.name, *(f"{value:.6f}" for value in (
                         ranking.score[number], entry.probability, entry.given_probability)),
                     annotator))
    write_csv(folder / "suspicious.csv", _COLUMNS, rows)
    write_query(folder, query_of(answered, ranking, seed=seed), max_mask_gb=0)
    write_page(folder / "suspicious.html", entries, title=title, paragraphs=paragraphs,
               commands=commands)


def list_suspicious(args: argparse.Namespace, flags: dict, *, last: int) -> None:
    run, folder = Path(args.run), _output(args)
    dir_dataset = args.dir_dataset or flags["dir_dataset"]
    spec, answered, (probabilities,) = judge(
        run, flags, last=last, judges=[args.networks], dir_dataset=dir_dataset,
        device_name=args.device, batch_size=args.batch_size, n_workers=args.n_workers)
    done = looked_at(run, answered)
    found = rank(probabilities, answered.points, score=args.score, left_out=done,
                 min_confidence=args.min_confidence)
    if not len(found.index):
        print(f"none of {len(answered.points)} answers is contradicted with a confidence of "
              f"{args.min_confidence:g}; nothing was written (see --min_confidence)")
        return
    listed = rank(probabilities, answered.points, score=args.score, left_out=done,
                  min_confidence=args.min_confidence, n=args.n)
    annotators = [""] * len(listed.index)
    if flags["labeller"] == "human":
        annotators = annotators_of(answered, listed.index, spec=spec,
                                   places=args.dir_annotations or flags["dir_annotations"])
    look = launch_command(
        folder / "query.json", dataset=spec.name, classes_file=flags["p_dataset_config"],
        dir_dataset=dir_dataset, dir_logs=folder / "answers",
        annotator=annotators[0] if annotators[0] and len({*annotators}) == 1 else None)
    apply = shlex.join([
        sys.executable, "-m", "utils.suspicious", str(run), "--apply", str(folder / "answers"),
        *(["--round", str(last)] if args.round != -1 else [])])
    paragraphs = [
        f"{len(found.index)} of the run's {len(answered.points)} answers are contradicted with a "
        f"confidence of {args.min_confidence:g} or more after round {last}; the "
        f"{len(listed.index)} most suspicious ones are listed, ranked by {args.score} (networks: "
        f"{args.networks}).",
        *[f"{done.sum()} answers have had their second look and are left out."] * bool(done.any())]
    write_list(folder, answered, listed, annotators, spec=spec, dir_dataset=dir_dataset,
               title=f"Suspicious answers: {run.resolve().name}",
               paragraphs=[*paragraphs, "In brackets: the probability that the model gives the "
                                        "class."],
               commands=[("The second look, by the annotation tool:", look),
                         ("and the way back, a new run with the corrected answers:", apply)],
               seed=flags["seed"])
    print(f"{paragraphs[0]}\nlist: {folder / 'suspicious.html'} (figures: suspicious.csv beside "
          f"it)\nLook at them again with\n\n    {look}\n\nthen make a run with the corrected "
          f"answers:\n\n    {apply}")


def apply_corrections(args: argparse.Namespace, record: dict, *, last: int) -> None:
    run, flags = Path(args.run), record["flags"]
    source = Path(args.apply) if args.apply else _output(args) / "answers"
    model = load_model(checkpoint_of(run, last), device=select_device("cpu"))
    asked = load_query(run / "0_query" / "query.json")  # it has all images of the run
    answered = read_answered(run, flags=flags, last=last, names=asked.names, sizes=asked.sizes,
                             n_classes=model.spec.n_classes)
    look = read_second_look(source, answered, spec=model.spec,
                            on_conflict=args.on_conflict or "error")
    if not look.n_changed:
        print(f"{len(look.looked_at)} answers were looked at again and none is another one now; "
              "nothing was written")
        return
    folder, command = write_corrected(
        run, answered, look, spec=model.spec, source=source, command=record["command"],
        flags=corrected_flags(flags, last=last, suffix=args.suffix))
    print(f"{len(look.looked_at)} answers were looked at again, {look.n_changed} of them are "
          f"another one now. All {len(answered.points)} answers are the first round of a new run, "
          f"{folder}\nTrain it with\n\n    {command}")


def _output(args: argparse.Namespace) -> Path:
    return Path(args.output or Path(args.run) / "suspicious")


def main(argv: Sequence[str] | None = None) -> int:
    args = suspicious_parser().parse_args(argv)
    for name in ("suffix", "on_conflict"):
        if args.apply is None and getattr(args, name) is not None:
            raise InputError(f"--{name} has no meaning without --apply")
    record = read_record(args.run)
    last = finished_round(args.run, args.round)
    if args.apply is None:
        list_suspicious(args, record["flags"], last=last)
    else:
        apply_corrections(args, record, last=last)
    return 0


if __name__ == "__main__":
    run_program(main)
