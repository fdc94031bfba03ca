"""Class maps of images, and of the frames of videos, by a trained network.

`python predict.py --checkpoint FILE --input FILE|DIR|GLOB --output DIR`; the same command continues
an interrupted one. With `--export` the network becomes a file for other programs.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from args import parse_predict_arguments
from datasets.images import any_number_of_pixels, read_image
from datasets.inputs import InputFile, check_apart, check_names, find_inputs, label_maps
from datasets.spec import ClassSet
from datasets.stored import readers
from utils.device import select_autocast, select_device
from utils.errors import InputError, run_program
from utils.evaluation import evaluate_files, scores_table, scores_to_write
from utils.export import export_model
from utils.files import write_json
from utils.models import Model, load_model
from utils.outputs import (
    LABELS,
    VIDEO,
    Writers,
    digest_of,
    open_folder,
    overlay,
    palette_of,
    read_record,
    write_outputs,
    writers_for,
)
from utils.progress import track
from utils.segmenter import SIZES, Prepared, Segmenter
from utils.tiles import Tiling
from utils.video import opencv, video_facts, video_frames, video_writer

SKIPPED = 1  # exit code: some files could not be read
_NAMED = 5  # that are missing


def main(argv: Sequence[str] | None = None) -> int:
    return run(parse_predict_arguments(argv))


def run(args: argparse.Namespace) -> int:
    """Everything that can be wrong with the input is found before anything is written."""
    if args.export:
        return export(args)
    folder = Path(args.output)
    files = find_inputs(args.input)
    check_apart(args.input, files, folder)
    read_record(folder)
    images, videos = ([file for file in files if file.is_video == what] for what in (False, True))
    if videos:
        opencv()
    if not images and (args.labels or args.probabilities or args.uncertainty):
        raise InputError("--labels, --probabilities and --uncertainty are for images; --input has "
                         "videos only")
    device = select_device(args.device)
    model = load_model(args.checkpoint, device=device)
    writers = writers_for(model.spec, with_overlay=args.overlay, uncertainty=args.uncertainty,
                          with_probabilities=args.probabilities)
    check_names(files, list(writers), video_ending=VIDEO)
    labels = label_maps(images, Path(args.labels), spec=model.spec) if args.labels else {}
    segmenter = segmenter_of(model, args)
    notice = open_folder(folder, classes=model.spec, overwrite=args.overwrite, how={
        "input": str(files[0].root), "network": digest_of(model.network), "size": args.size,
        "tile": args.tile, "overlap": args.overlap, "flip": args.flip, "scales": args.scales,
        "amp": args.amp})
    if notice:
        print(notice, file=sys.stderr)
    paths = {file: [folder / f"{file.stem}{ending}"
                    for ending in ([VIDEO] if file.is_video else writers)] for file in files}
    if args.overwrite:
        for path in (path for of_file in paths.values() for path in of_file):
            path.unlink(missing_ok=True)  # what is there later has been made by this command
    done = {file for file in files if all(path.exists() for path in paths[file])}

    broken: dict[str, str] = {}
    with any_number_of_pixels() if args.tile else nullcontext():
        predict_images([file for file in images if file not in done], segmenter, writers,
                       folder=folder, n_workers=args.n_workers, broken=broken)
        for file in videos:
            if file not in done:
                predict_video(file, segmenter, paths[file][0], classes=model.spec, broken=broken)
        print(f"{len(files) - len(broken)} of {len(files)} predicted: {folder}"
              + (f" ({len(done)} were there already)" if done else ""))
        if args.labels:
            evaluate(labels, folder, model.spec, n_workers=args.n_workers, broken=broken)
    if broken:
        print(f"could not be read: {len(broken)} files", file=sys.stderr)
        for reason in broken.values():
            print(f"  {' '.join(reason.split())}", file=sys.stderr)
    return SKIPPED if broken else 0


def export(args: argparse.Namespace) -> int:
    if Path(args.output).resolve() == Path(args.checkpoint).resolve():
        raise InputError(f"--output {args.output} is the checkpoint; give another file")
    model = load_model(args.checkpoint, device=torch.device("cpu"))
    export_model(model, kind=args.export, path=args.output)
    print(f"{args.output}: {Path(args.output).stat().st_size / 1e6:.1f} MB; images (N, H, W, 3) "
          f"uint8 RGB -> logits (N, {model.spec.n_classes}, H, W) float32")
    return 0


def segmenter_of(model: Model, args: argparse.Namespace) -> Segmenter:
    grid = model.spec.grid.divided(model.config["downsample"])

    def network_size(size: tuple[int, int]) -> tuple[int, int]:
        return args.size if isinstance(args.size, tuple) else SIZES[args.size](grid, size)

    return Segmenter(
        network=model.network, predictor=model.predictor(batch_size=args.batch_size),
        autocast=select_autocast(args.amp, model.device), network_size=network_size,
        scales=args.scales, flip=args.flip, uncertainty=args.uncertainty,
        tiling=args.tile and Tiling(size=tuple(args.tile), overlap=args.overlap),
        with_probabilities=args.probabilities, keep_image=args.overlay)


def predict_images(files: Sequence[InputFile], segmenter: Segmenter, writers: Writers, *,
                   folder: Path, n_workers: int, broken: dict[str, str]) -> None:
    """Write what `writers` say for every image; `broken` gets the reason for those that cannot be
    read. Threads read and write while the device computes."""
    ahead = 1 if segmenter.tiling else 2 * segmenter.predictor.batch_size
    images = _read_ahead(files, segmenter.prepare, n_workers=n_workers, ahead=ahead, broken=broken)
    writing: deque[Future] = deque()
    with ThreadPoolExecutor(max(n_workers, 1), thread_name_prefix="writer") as pool:
        try:
            for image, prediction in segmenter.predict(images):
                writing.append(pool.submit(write_outputs, folder, image.key.stem, writers, image,
                                           prediction))
                while len(writing) > max(n_workers, 1):
                    writing.popleft().result()
            for future in writing:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_ahead(files: Sequence[InputFile], prepare: Callable[..., Prepared], *, n_workers: int,
                ahead: int, broken: dict[str, str]) -> Iterator[Prepared]:
    """The files in order, `ahead` of them read before they are needed."""
    pool, waiting = readers(n_workers), deque()

    def read(file: InputFile) -> Prepared:
        return prepare(read_image(file.path), key=file)

    def results() -> Iterator[Prepared | None]:
        try:
            for file in files:
                waiting.append((file, pool.submit(read, file)))
                if len(waiting) > ahead:
                    yield result(*waiting.popleft())
            while waiting:
                yield result(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def result(file: InputFile, future: Future) -> Prepared | None:
        try:
            return future.result()
        except InputError as error:
            broken[file.name] = str(error)
            return None

    tracked = track(results(), len(files), description="predicting", unit="image")
    return (image for image in tracked if image is not None)


def predict_video(file: InputFile, segmenter: Segmenter, path: Path, *, classes: ClassSet,
                  broken: dict[str, str]) -> None:
    """Write the video with every frame half covered by the colours of its classes."""
    palette = palette_of(classes)
    segmenter = replace(segmenter, keep_image=True, uncertainty=None, with_probabilities=False)
    try:
        facts = video_facts(file.path)
    except InputError as error:
        broken[file.name] = str(error)
        return
    frames = (segmenter.prepare(frame, key=number)
              for number, frame in enumerate(video_frames(file.path)))
    with video_writer(path, facts) as write:
        for frame, prediction in track(segmenter.predict(frames), facts.n_frames,
                                       description=file.name, unit="frame"):
            write(overlay(frame.image, prediction.labels, palette))


def evaluate(labels: Mapping[InputFile, Path | None], folder: Path, classes: ClassSet, *,
             n_workers: int, broken: dict[str, str]) -> None:
    """Print the scores of what has been written and write them as evaluation.json; label maps that
    are missing are named, those that cannot be read are added to `broken`."""
    missing = [file.name for file, label in labels.items() if label is None]
    pairs = {folder / f"{file.stem}{LABELS}": label for file, label in labels.items()
             if label is not None and file.name not in broken}
    if missing:
        print(f"no label maps of {len(missing)} images: {', '.join(missing[:_NAMED])}"
              + ", ..." * (len(missing) > _NAMED), file=sys.stderr)
    confusion, unreadable = evaluate_files(pairs, classes=classes, n_threads=n_workers)
    broken.update((str(path), reason) for path, reason in unreadable.items())
    scores = {"n_images": len(pairs) - len(unreadable), "without_labels": missing,
              **scores_to_write(confusion, classes)}
    write_json(folder / "evaluation.json", scores)
    print(f"{scores_table(scores)}\n{scores['n_images']} images; figures: "
          f"{folder / 'evaluation.json'}")


if __name__ == "__main__":
    run_program(main)
