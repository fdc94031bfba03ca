"""The convolutions that the CPU computes in ways of our own (`conv3x3` of networks/windows.py,
`StridedDepthwise` and `DilatedDepthwise` of networks/backbones.py) against those of the library:
whole training steps, which take turns.

    OMP_NUM_THREADS=1 python benchmarks/convolutions.py \\
        --json benchmarks/results/convolutions_cpu.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_table
from benchmarks.step import Step, seconds_in_turns
from utils.device import select_device
from utils.files import write_json
from utils.machine import describe_machine

LIBRARY = {
    "conv3x3": ("networks.decoder.conv3x3", F.conv2d),
    "StridedDepthwise": ("networks.backbones.StridedDepthwise.forward", nn.Conv2d.forward),
    "DilatedDepthwise": ("networks.backbones.DilatedDepthwise.forward", nn.Conv2d.forward),
}  # of each of ours the library's, and where it is put
WAYS = {"library": LIBRARY, **{f"only {name}": LIBRARY.keys() - {name} for name in LIBRARY},
        "ours": ()}  # which of ours are replaced
SIZES = ((90, 120), (180, 240), (360, 480))


def seconds_of_ways(step: Step, *, repeats: int) -> dict[str, float]:
    """Of each way the median seconds of a step."""
    device = select_device("cpu")
    run = step.build(device)
    ways = [partial(_run_with_library, run, replaced) for replaced in WAYS.values()]
    seconds, _ = seconds_in_turns(ways, repeats=repeats, device=device)
    return dict(zip(WAYS, seconds, strict=True))


def _run_with_library(run: Callable[[], None], replaced: Iterable[str]) -> None:
    """`run` with the library's ways in place of these of ours."""
    with ExitStack() as stack:
        for name in replaced:
            stack.enter_context(patch(*LIBRARY[name]))
        run()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")
    parser.add_argument("--repeats", type=int, default=15, help="steps of each way (default: 15)")
    parser.add_argument("--sizes", type=int, nargs="+", choices=[h for h, _ in SIZES],
                        default=[h for h, _ in SIZES], help="heights of the images (default: all)")
    parser.add_argument("--points", type=int, default=20, help="labels an image (default: 20)")
    args = parser.parse_args(argv)
    results = []
    for size in (size for size in SIZES if size[0] in args.sizes):
        for amp in ("on", "off"):
            step = Step(size=size, points=args.points, amp=amp)
            seconds = seconds_of_ways(step, repeats=args.repeats)
            results.append({"size": size, "points": args.points, "batch_size": step.batch_size,
                            "amp": amp, "seconds": seconds,
                            "of_library": {way: taken / seconds["library"]
                                           for way, taken in seconds.items()}})
    print_table(["size", "precision", "library, s", *(f"{way}, of it" for way in WAYS)],
                [["x".join(map(str, row["size"])), "bfloat16" if row["amp"] == "on" else "float32",
                  row["seconds"]["library"], *row["of_library"].values()] for row in results])
    if args.json:
        write_json(args.json, {"machine": describe_machine(torch.device("cpu")),
                               "threads": torch.get_num_threads(), "repeats": args.repeats,
                               "steps": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
