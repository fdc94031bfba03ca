"""What this machine makes of the program: one table, one JSON, the same command on CPU and GPU.

    python benchmarks/run.py --json FILE -- --dataset_name cv --dir_dataset DIR --weights FILE

Step: seconds of a training step on random images by network, size, points, precision and, with
--compile, compiled; the plain way (benchmarks/step.py) takes turns with ours in the same process.
Limit: what the step's counted arithmetic and bytes take at the measured rates of a matrix product
and a copy (benchmarks/roofline.py). Memory: of processes of their own. Round: making batches, an
epoch, a validation, a query, of the run that the flags of train.py after `--` describe; without
them on drawn scenes of 360x480. On a CPU all of it takes a quarter of an hour. With `--parts
profile` (benchmarks/operations.py) besides: launches and the longest operations of a step, the
forward pass of evaluation, and two processes side by side.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import operations, roofline
from benchmarks.machine import print_table
from benchmarks.round import measure_round
from benchmarks.step import WAYS, Step, peak_mb_alone, seconds_in_turns
from datasets.synthetic import write_street_scenes
from networks import BACKBONES, NETWORKS
from utils.device import has_bfloat16, select_device
from utils.errors import InputError, run_program
from utils.files import write_json
from utils.flags import DIR_ROOT
from utils.machine import describe_machine
from utils.parsing import Parser, integer, split_at_dashes
from utils.runs import public_command
from utils.version import git_commit

PARTS = ("step", "memory", "round")
PROFILE = "profile"
# A check that all of it runs, in seconds.
QUICK = {"networks": [("deeplab", "mobilenetv2")], "sizes": [(48, 64)], "points": [4],
         "ways": ["plain", "ours"], "batch_size": 2, "repeats": 1, "epochs": 1}


def groups(args: argparse.Namespace, device: torch.device) -> Iterator[list[Step]]:
    """Steps to be compared with each other, the plain way first. All points at the first size and
    the first points at all sizes for the first network; for the others the first of both."""
    amps = ["off", "on"] if has_bfloat16(device) else ["off"]
    for number, (network, backbone) in enumerate(args.networks):
        settings = [(args.sizes[0], points) for points in args.points]
        settings += [(size, args.points[0]) for size in args.sizes[1:]]
        for size, points in settings[:1] if number else settings:
            step = Step(network=network, backbone=backbone, size=size, points=points,
                        batch_size=args.batch_size)
            plain = [replace(step, way=way, amp="off") for way in args.ways if way != "ours"]
            ours = [replace(step, amp=amp) for amp in amps] if "ours" in args.ways else []
            compiled = [replace(mine, compile=True) for mine in ours if args.compile]
            yield [*plain, *ours, *compiled]


def measure_steps(steps: Sequence[Step], *, repeats: int, device: torch.device,
                  rates: dict[str, float], with_memory: bool) -> list[dict]:
    """A row for each of a group."""
    rows = []
    seconds, warming = seconds_in_turns([step.build(device) for step in steps], repeats=repeats,
                                        device=device)
    for step, taken, until_warm in zip(steps, seconds, warming, strict=True):
        flops, moved = roofline.count(replace(step, compile=False).build(device))
        limits = roofline.limit(flops, moved, rates,
                                precision="bfloat16" if step.amp == "on" else "float32")
        row = asdict(step) | {
            "step_s": taken, "warming_s": until_warm, "of_first": taken / seconds[0],
            "flops": flops, "bytes": moved, **limits,
            "percent_of_limit": 100 * max(limits.values()) / taken}
        if with_memory:
            row["peak_mb"] = peak_mb_alone(step, device=str(device))
            row["peak_of_first"] = row["peak_mb"] / (rows[0] if rows else row)["peak_mb"]
        rows.append(row)
    return rows


def print_steps(rows: Sequence[dict]) -> None:
    def cell(row: dict, name: str, form: str) -> str:
        return format(row[name], form) if name in row else ""

    print_table(
        ["network", "size", "points", "way", "bfloat16", "compiled", "s a step", "of plain",
         "GFLOP", "GB", "arithmetic s", "bytes s", "% of limit", "peak MB", "of plain"],
        [[f"{row['network']} {row['backbone']}", "x".join(map(str, row["size"])), row["points"],
          row["way"], row["amp"], "yes" if row["compile"] else "no", row["step_s"],
          row["of_first"], row["flops"] / 1e9, row["bytes"] / 1e9, row["arithmetic_s"],
          row["bytes_s"], f"{row['percent_of_limit']:.0f}", cell(row, "peak_mb", ".0f"),
          cell(row, "peak_of_first", ".2f")] for row in rows])


def measured_profile(args: argparse.Namespace, device: torch.device) -> list[dict]:
    """Of each network's first group: a row for each of our ways, printed as it is measured."""
    batch_sizes, n_steps, seconds = ([2], 2, 0.2) if args.quick else ([8, 32], 10, 5.0)
    rows = []
    for number, network in enumerate(args.networks):
        group = next(group for group in groups(args, device)
                     if (group[0].network, group[0].backbone) == network)
        ours = [step for step in group if step.way == "ours"]
        for step in ours[-1:] if args.quick else ours:
            row = operations.measure_operations(step, device, n_steps=n_steps)
            if not number:
                for n in (1,) if args.quick else (1, 2):
                    row[f"steps_a_second_{n}"] = operations.steps_a_second(
                        step, device=str(device), n_processes=n, seconds=seconds)
            rows.append(row)
            print_table(["ms", "count", "operation"], [
                [found["ms"], found["count"], found["name"]] for found in row["longest"]])
        rows[-1]["forward_ms"] = {
            f"{n} {kind}": operations.forward_ms(group[0], device, batch_size=n,
                                                 exact=kind == "exact")
            for n in batch_sizes for kind in ("exact", "tf32")}
    shown = ["network", "backbone", "amp", "compile", "step_ms", "busy_ms", "host_launches",
             "operations", "depthwise_ms", "steps_a_second_1", "steps_a_second_2", "forward_ms"]
    print_table(shown, [[row.get(name, "") for name in shown] for row in rows])
    return rows


def measured_round(words: Sequence[str], *, quick: bool, n_epochs: int, more: Sequence[str]
                   ) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        if not words:
            n_train, n_test, height, width = (6, 4, 48, 64) if quick else (40, 24, 360, 480)
            data = Path(folder) / "scenes"
            write_street_scenes(data, n_train=n_train, n_test=n_test, height=height, width=width)
            words = ["--dataset_name", "cv", "--dir_dataset", str(data), "--weight_type", "random",
                     *(["--downsample", "8", "--batch_size", "2"] if quick else [])]
        return measure_round([*words, *more], n_epochs=n_epochs)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    head, words = split_at_dashes(argv)
    parser = Parser(prog="run.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter,
                    usage="%(prog)s [flags] [-- flags of train.py]")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--note", default="", help="kept in the JSON")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, PROFILE), default=PARTS)
    parser.add_argument("--networks", nargs="+", type=_network, metavar="NETWORK:BACKBONE",
                        default=[("deeplab", "mobilenetv2"), ("FPN", "resnet50")])
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="HxW",
                        default=[(360, 480), (180, 240)])
    parser.add_argument("--points", nargs="+", type=integer(1), default=[10, 100])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["plain", "ours"])
    parser.add_argument("--batch_size", type=integer(2), default=4)
    parser.add_argument("--compile", action="store_true",
                        help="steps compiled as well (on a CPU that takes minutes), and the epoch")
    parser.add_argument("--repeats", type=integer(1), default=5, help="turns of the steps")
    parser.add_argument("--epochs", type=integer(1),
                        help="of the round, the last one counts (default: 3 on a GPU, else 1)")
    parser.add_argument("--quick", action="store_true", help="a check that it runs, in seconds")
    args = parser.parse_args(head)
    if args.quick:
        vars(args).update(QUICK)
    args.words = words
    return args


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 360x480")
    return int(height), int(width)


def _network(text: str) -> tuple[str, str]:
    network, _, backbone = text.partition(":")
    if network not in NETWORKS or backbone not in BACKBONES:
        raise argparse.ArgumentTypeError(f"{text!r} is no network like deeplab:mobilenetv2")
    return network, backbone


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    args = parse(words)
    device = select_device(args.device)
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {args.device}: figures are of a CPU or a CUDA GPU")
    content = {"machine": describe_machine(device), "git_commit": git_commit(DIR_ROOT),
               "command": public_command(words), "note": args.note}
    print(", ".join(f"{name} {value}" for name, value in content["machine"].items()))

    def save() -> None:  # after each part: what is interrupted leaves what it has measured
        if args.json:
            write_json(args.json, content)

    # First: its peak on a CPU is that of this process so far.
    if "round" in args.parts:
        more = ["--device", str(device), *(["--compile"] if args.compile else [])]
        content["round"] = measured_round(
            args.words, quick=args.quick, more=more,
            n_epochs=args.epochs or (3 if device.type == "cuda" else 1))
        figures = {name: value for name, value in content["round"].items()
                   if isinstance(value, float)}
        print_table(list(figures), [list(figures.values())])
        save()
    if "step" in args.parts:
        rates = content["rates"] = roofline.machine_rates(device)
        print(f"float32 {rates['float32'] / 1e12:.3g} TFLOP/s, bfloat16 "
              f"{rates['bfloat16'] / 1e12:.3g} TFLOP/s, copy {rates['copy'] / 1e9:.3g} GB/s")
        content["steps"], measured = [], set()
        for group in groups(args, device):
            first = (group[0].network, group[0].backbone) not in measured
            measured.add((group[0].network, group[0].backbone))
            content["steps"] += measure_steps(
                group, repeats=args.repeats, device=device, rates=rates,
                with_memory="memory" in args.parts and first)
            save()
        print_steps(content["steps"])
    if PROFILE in args.parts:
        content["profile"] = measured_profile(args, device)
        save()
    return 0


if __name__ == "__main__":
    run_program(main)
