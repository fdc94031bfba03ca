"""Latency, start-up and memory of the annotation window, with 3,000 images and real key events.

    python benchmarks/annotation.py --dir_imgs "$CAMVID_DIR/train" --json annotation.json

It makes a folder of links to the given images (drawn scenes if none are given) and a query.json of
10 pixels each, opens the window under Xvfb, and has xdotool press class keys, one after another, as
soon as the next pixel is painted and a pause has passed. A latency goes from the moment the key is
sent to xdotool to the moment the X server has drawn the next pixel (after a round trip to it), the
journal's fsync included; start-up from the start of the process to the first pixel drawn. With
--browser the same keys go to the browser version in headless Chromium, on localhost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from annotation_tool.asked import list_images, write_random_query
from datasets import Grid
from datasets.synthetic import write_street_scenes
from utils.errors import InputError, run_program

TARGETS = {"same_image_p95_ms": 20.0, "next_image_p95_ms": 50.0, "start_s": 1.5,
           "memory_mb": 300.0, "browser_same_image_p95_ms": 50.0,
           "browser_next_image_p95_ms": 50.0}
_IN_WINDOW = "--in_window"
_KEYS = "kbprvtsfcdi"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir_imgs", type=Path, help="images to link to; none: drawn scenes")
    parser.add_argument("--n_images", type=int, default=3000)
    parser.add_argument("--n_keys", type=int, default=300)
    parser.add_argument("--pause", type=float, default=0.15, help="seconds between two keys")
    parser.add_argument("--browser", action="store_true", help="measure the browser version too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keys = [_KEYS[i % len(_KEYS)] for i in range(args.n_keys)]
        flags = prepare(Path(folder), args.dir_imgs, args.n_images)
        with display() as environment:
            figures = measure_window(flags, environment, keys=keys, pause=args.pause)
        if args.browser:
            from benchmarks.annotation_browser import measure_browser

            ready, measured = measure_browser(flags, keys=keys, pause=args.pause)
            figures |= {f"browser_{name}": value for name, value in
                        ({"start_s": ready} | latencies(measured)).items()}
    report(args, figures)
    return 0


def prepare(folder: Path, dir_imgs: Path | None, n_images: int) -> list[str]:
    """The flags that open the images of `folder`."""
    if dir_imgs is None:
        write_street_scenes(folder / "scenes", n_train=20, n_test=1, height=360, width=480)
        dir_imgs = folder / "scenes" / "train"
    sources = [dir_imgs.resolve() / name for name in list_images(dir_imgs)]
    (folder / "images").mkdir()
    for i in range(n_images):
        source = sources[i % len(sources)]
        (folder / "images" / f"{i:05}{source.suffix}").symlink_to(source)
    write_random_query(folder / "query", dir_imgs=folder / "images", n_pixels=10,
                       grid=Grid(size=(360, 480)), seed=0)
    return ["--dataset_name", "camvid", "--dir_imgs", str(folder / "images"), "--path_query",
            str(folder / "query" / "query.json"), "--dir_logs", str(folder / "logs"), "--n_imgs",
            "-1"]


@contextmanager
def display() -> Iterator[dict[str, str]]:
    """An X server without a screen; the environment for its programs."""
    number, ready = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(ready), "-screen", "0", "1280x900x24"],
                              pass_fds=[ready], stderr=subprocess.DEVNULL)
    os.close(ready)
    with open(number) as file:
        name = f":{file.readline().strip()}"
    try:
        yield os.environ | {"DISPLAY": name, "OMP_NUM_THREADS": "1"}
    finally:
        server.terminate()
        server.wait()


# --- the window ---------------------------------------------------------------------------------


def measure_window(flags: list[str], environment: dict[str, str], *, keys: list[str],
                   pause: float) -> dict[str, float]:
    child = subprocess.Popen(
        [sys.executable, __file__, _IN_WINDOW, repr(time.monotonic()), *flags], text=True,
        env=environment, stdout=subprocess.PIPE)
    typist = subprocess.Popen(["xdotool", "-"], stdin=subprocess.PIPE, text=True, env=environment)
    start, _ = next_paint(child)
    time.sleep(1)  # decoding ahead
    window = subprocess.run(["xdotool", "search", "--class", "PixelPick"], text=True,
                            env=environment, capture_output=True, check=True).stdout.split()[-1]
    print(f"windowfocus {window}", file=typist.stdin, flush=True)
    time.sleep(0.3)

    measured, before = [], 0
    for key in keys:
        sent = time.monotonic()
        print(f"key {key}", file=typist.stdin, flush=True)
        painted, image = next_paint(child)
        measured.append(((painted - sent) * 1e3, image != before))
        before = image
        time.sleep(pause)
    print("key Escape", file=typist.stdin, flush=True)
    (line,) = (line for line in child.stdout if line.startswith("memory"))
    child.wait()
    typist.terminate()
    return {"start_s": start} | latencies(measured) | {"memory_mb": float(line.split()[1])}


def next_paint(child: subprocess.Popen) -> tuple[float, int]:
    """When the next pixel was painted (monotonic seconds; the first time since the start), and the
    index of its image."""
    for line in child.stdout:
        if line.startswith("painted"):
            _, when, image = line.split()
            return float(when), int(image)
    raise InputError("the window has closed; see its error above")


def latencies(measured: list[tuple[float, bool]]) -> dict[str, float]:
    """`measured`: per key milliseconds, and whether the next pixel was in another image."""
    found = {name: [ms for ms, other in measured if other == is_other]
             for name, is_other in (("same_image", False), ("next_image", True))}
    return {f"{name}_{what}_ms": float(np.percentile(times, percent))
            for name, times in found.items()
            for what, percent in (("median", 50), ("p95", 95), ("max", 100))} | {
        f"n_{name}": len(times) for name, times in found.items()}


def in_window(started: float, flags: list[str]) -> int:
    """In a process of its own: the window as users open it, telling when a pixel is painted."""
    from annotation_tool import launch_gui, window

    show = window.Window.show
    first = [True]

    def timed(self: window.Window) -> None:
        show(self)
        if not self.waiting:
            self.root.winfo_pointerxy()  # a round trip: the X server has drawn what it was sent
            now = time.monotonic() - (started if first[0] else 0)
            first[0] = False
            print("painted", now, self.session.pixel.image, flush=True)

    window.Window.show = timed
    code = launch_gui.main(flags)
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in status if line.startswith("VmHWM:"))
    print("memory", int(peak.split()[1]) * 1024 / 1e6, flush=True)
    return code


def report(args: argparse.Namespace, figures: dict[str, float]) -> None:
    import torch

    from benchmarks.machine import print_table
    from utils.files import write_json
    from utils.machine import describe_machine

    print_table(("", "measured", "target"), [(name, value, TARGETS.get(name, ""))
                                             for name, value in figures.items()])
    if args.json:
        write_json(args.json, {
            "machine": describe_machine(torch.device("cpu")), "n_images": args.n_images,
            "images": "drawn" if args.dir_imgs is None else args.dir_imgs.name,
            "figures": figures})


if __name__ == "__main__":
    if sys.argv[1:2] == [_IN_WINDOW]:
        run_program(lambda: in_window(float(sys.argv[2]), sys.argv[3:]))
    run_program(main)
