"""Checkpoints for publication.

    python -m utils.zoo pack RUN         one file of a run, its card and its SHA-256
    python -m utils.zoo convert FILE     a checkpoint of PixelPick's authors as one of this program
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datasets import DATASET_NAMES, DATASETS
from datasets.images import IGNORE
from datasets.prepare import prepare
from datasets.split import load_split
from networks import build_network
from networks.original import convert_original
from utils.acquisition import MC_N_STEPS, VOTE_TYPE
from utils.checkpoints import cpu_state, load_checkpoint, save_safetensors
from utils.device import select_device, upload
from utils.downloads import is_remote, local_file
from utils.errors import InputError, run_program
from utils.files import file_digest, read_csv, read_json, write_text
from utils.metrics import ConfusionMatrix, segmentation_scores
from utils.model_card import Card, Change
from utils.models import Model, load_model
from utils.parsing import Parser, integer, named
from utils.runs import public_command

PRECISIONS = ("half", "float32")

# What the authors normalise with, and the factor that they shrink the grid by.
AUTHORS: dict[str, dict] = {
    "camvid": dict(downsample=1, mean=[0.41189489566336, 0.4251328133025, 0.4326707089857],
                   std=[0.27413549931506, 0.28506257482912, 0.28284674400252]),
    "cityscapes": dict(downsample=4, mean=[0.28689554, 0.32513303, 0.28389177],
                       std=[0.18696375, 0.19017339, 0.18720214]),
    "voc": dict(downsample=1, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
}


# --- packing ------------------------------------------------------------------------------------


def stored(state: dict[str, Tensor], *, precision: str) -> dict[str, Tensor]:
    """A state dict as it is published: with `half` all that has more than one dimension in float16.
    Vectors stay in float32: batch norm's running variances have a wider range than float16, and
    together they are a hundredth of the file. Raises InputError for weights out of that range."""
    if precision == "float32":
        return state
    state = {name: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
             for name, tensor in state.items()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{name} has weights beyond float16; give --precision float32")
    return state


def measure_change(exact: Model, packed: Model, *, dir_dataset: str | Path, full: bool,
                   batch_size: int, n_workers: int) -> Change:
    """`full`: against the data set's own label maps, not those of its reduced copy."""
    spec, downsample = exact.spec, exact.config["downsample"]
    if spec.evaluation not in spec.splits:
        raise InputError(f"--dir_dataset: {spec.name} has no evaluation split to measure on")
    folder = dir_dataset if full else prepare(
        spec, dir_dataset=dir_dataset, downsample=downsample, n_workers=n_workers,
        splits={spec.evaluation: True})
    split = load_split(spec, spec.evaluation, dir_dataset=folder, n_workers=n_workers,
                       grid=spec.grid.divided(downsample))
    predictor = exact.predictor(batch_size=batch_size)
    confusions = [ConfusionMatrix(spec.n_classes, ignore_index=IGNORE, device=exact.device)
                  for _ in range(2)]
    largest, changed, n_pixels = 0.0, 0, 0
    both = (predictor.logits(model.network, split, to_labels=True, exact=True)
            for model in (exact, packed))
    for (index, before), (_, after) in zip(*both, strict=True):
        classes = before.argmax(dim=1), after.argmax(dim=1)
        labels = torch.stack([upload(split.labels[i], exact.device) for i in index])
        for confusion, predicted in zip(confusions, classes, strict=True):
            confusion.update(predicted, labels)
        largest = max(largest, (after - before).abs().max().item())
        changed += (classes[0] != classes[1]).sum().item()
        n_pixels += classes[0].numel()
    miou = tuple(segmentation_scores(confusion.compute())["miou"] for confusion in confusions)
    return Change(n_images=len(split), logit=largest, pixels=changed / n_pixels, miou=miou)


def pack(args: argparse.Namespace) -> int:
    run = Path(args.run)
    record, row, folder = _round(run, args.round)
    path = folder / f"{args.which}.pt"
    device = select_device(args.device)
    model, epoch = load_model(path, device=device), load_checkpoint(path, needs=("epoch",))["epoch"]
    config, which = model.config, args.which
    pixels = f"_{float(row['pixels_per_image']):g}px" if config["asking"]["n"] else ""
    name = f"{run.resolve().name}{pixels}_{which}"
    output = Path(args.output or run / "packed") / f"{name}.safetensors"
    save_safetensors(output, {
        "config": config, "epoch": epoch, "licence": args.licence,
        "network": stored(cpu_state(model.network), precision=args.precision)})
    packed, change = load_model(output, device=device), None
    if args.precision != "float32" and args.dir_dataset:
        change = measure_change(model, packed, dir_dataset=args.dir_dataset,
                                full=record["flags"].get("eval_full", False),
                                batch_size=args.batch_size, n_workers=args.n_workers)
    digest = file_digest(output)
    card = Card(
        name=name, sha256=digest, n_bytes=output.stat().st_size, precision=args.precision,
        which=which, epoch=epoch, config=packed.config, row=row, scores=_scores(folder, epoch),
        command="python " + public_command(record["command"][1:]),
        git_commit=record.get("git_commit"), versions=record["versions"], licence=args.licence,
        change=change)
    _write_digest(output, digest)
    write_text(output.with_suffix(".md"), card.markdown())
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB)\ncard: {output.with_suffix('.md')}\n"
          f"SHA-256: {digest} (also in {output.name}.sha256)")
    if change:
        print(change)
    return 0


def _round(run: Path, number: str) -> tuple[dict, dict[str, str], Path]:
    """A run's args.json, a finished round's row of metrics.csv, the round's folder. Raises
    InputError."""
    record = read_json(run / "args.json")
    if not isinstance(record, dict) or not record.keys() >= {"flags", "command", "versions"}:
        raise InputError(f"{run / 'args.json'} is not what train.py writes")
    rows = {row.get("round"): row for row in read_csv(run / "metrics.csv")}
    if not rows:
        raise InputError(f"{run}: no round is finished")
    row = rows.get(list(rows)[-1] if number == "last" else str(number))
    if row is None:
        raise InputError(f"{run}: no finished round {number}; choose from {', '.join(rows)}, or "
                         "last")
    full = record["flags"].get("n_pixels_by_us") == 0
    return record, row, run / ("full" if full else f"{row['round']}_query")


def _scores(folder: Path, epoch: int) -> dict[str, str] | None:
    """The evaluation of that epoch's network; None without a validation set."""
    path = folder / "log_val.csv"
    rows = read_csv(path) if path.exists() else []
    return next((row for row in rows if row["epoch"] == str(epoch)
                 and not math.isnan(float(row["miou"]))), None)


def _write_digest(path: Path, digest: str) -> None:
    write_text(path.with_name(f"{path.name}.sha256"), f"{digest}  {path.name}\n")


# --- the authors' checkpoints -------------------------------------------------------------------


def convert(args: argparse.Namespace) -> int:
    spec = DATASETS[DATASET_NAMES[args.dataset_name]]
    source = local_file(args.file)
    network, state = convert_original(load_checkpoint(source), source=str(args.file))
    if network["n_classes"] != spec.n_classes:
        raise InputError(f"{args.file}: was trained on {network['n_classes']} classes, but "
                         f"{spec.name} has {spec.n_classes}; give another --dataset_name")
    build_network(**network).load_state_dict(state)  # a last check before anything is written
    config = AUTHORS[spec.name] | {
        "dataset": spec.to_dict(), "network": network, "n_images": None, "seed": 0, "round": 0,
        "classes": list(spec.class_names),
        "asking": dict(strategy="margin_sampling", n=10, top_n_percent=0.05, reverse_order=False,
                       use_mc_dropout=False, mc_n_steps=MC_N_STEPS, vote_type=VOTE_TYPE)}
    beside = Path() if is_remote(args.file) else source.parent
    output = Path(args.output or beside) / f"{source.stem}.safetensors"
    save_safetensors(output, {"config": config, "epoch": None, "network": state})
    _write_digest(output, file_digest(output))
    print(f"{output}: {network['name']} with {network['backbone']}, {spec.name}\n"
          "For the same pixels it gives the logits of the authors' program; what reads and resizes "
          "the images is this program's. It is for prediction and for asking.")
    return 0


# --- the command line ---------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m utils.zoo", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("pack", help="write a checkpoint of a run for publication",
                              description="Write a checkpoint of a run for publication: a "
                                          "safetensors file, its card, its SHA-256.")
    one.set_defaults(run_command=pack)
    one.add_argument("run", metavar="RUN", help="a run's folder")
    one.add_argument("--round", type=_number_or_last, default="last",
                     help="a finished one, as in its folder's name (2 for 2_query), or last")
    one.add_argument("--which", choices=("last", "best"), default="last",
                     help="epoch; best was chosen on the evaluation split")
    one.add_argument("--precision", choices=PRECISIONS, default="half", help="of the weights")
    one.add_argument("--output", metavar="DIR", help="default: packed/ in the run's folder")
    one.add_argument("--licence", help="said in the card and in the file")
    one.add_argument("--dir_dataset", metavar="DIR",
                     help="measure on this data set's evaluation split what --precision half "
                          "changes, for the card")
    one.add_argument("--batch_size", type=integer(1), default=8)
    one.add_argument("--n_workers", type=integer(0), default=4)
    one.add_argument("--device", default="auto")
    one = commands.add_parser("convert", help="a checkpoint of PixelPick's authors",
                              description="Make a checkpoint of this program of one that "
                                          "PixelPick's authors have published.")
    one.set_defaults(run_command=convert)
    one.add_argument("file", metavar="FILE|URL", help="what they published (best_miou_model.pt)")
    names = [name for name, own in DATASET_NAMES.items() if own in AUTHORS]
    one.add_argument("--dataset_name", required=True, type=named("dataset", names),
                     help="what it was trained on: " + ", ".join(names))
    one.add_argument("--output", metavar="DIR",
                     help="default: the file's folder, or here if that is an address")
    return parser.parse_args(argv)


def _number_or_last(text: str) -> str:
    return text if text == "last" else str(integer(0)(text))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return args.run_command(args)


if __name__ == "__main__":
    run_program(main)
