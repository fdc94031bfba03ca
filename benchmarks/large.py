"""A data set that does not fit in memory: 20,000 images of 512x1024, as links to a few files.

    python benchmarks/large.py --json benchmarks/results/large_cpu.json --full

Each figure is of a fresh process, its peak memory too: finding the files (`list`), decoding all
into the disk cache (`cache`; without --full the first 1000), starting once they are there
(`start`), starting without a cache (`none`), writing and reading a query and its answers of 10
pixels an image (`files`), the random query of the first round for 300 images (`first_query`), a
query of 300 by a MobileNetv2 with random weights (`query`), both without a cache, and epochs of
training on some of the images from the host's memory, from the disk cache and from the files
(`epoch`). What was measured on a part is extrapolated to all in the column of that name.
Needs 42 GB for --full, 2 GB without; everything is deleted at the end unless --dir is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import peak_memory_mb, print_table
from benchmarks.round import measure_round
from datasets.caches import Cache
from datasets.camvid import CAMVID
from datasets.config import read_config
from datasets.images import list_samples
from datasets.labellers import void_masks
from datasets.points import answer, read_labels, write_labels
from datasets.queries import Query, read_query, write_query
from datasets.split import LoadedSplit, load_split
from datasets.street.scene import draw_scene
from networks import build_network
from query import initial_query, next_query
from utils.device import select_device
from utils.errors import run_program
from utils.files import write_json, write_text
from utils.inference import Predictor
from utils.machine import describe_machine

SIZE = (512, 1024)
N_FILES = 8  # different ones
N_CACHED = 1000  # without --full
MEAN, STD = (0.41, 0.43, 0.43), (0.27, 0.29, 0.28)


def write_dataset(folder: Path, *, n_images: int) -> None:
    """`dataset.yaml`, and links `images/*.jpg` and `labels/*.png` to a few drawn scenes."""
    for part in ("files", "images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(N_FILES):
        image, label = draw_scene(np.random.default_rng(i), height=SIZE[0], width=SIZE[1])
        Image.fromarray(image).save(folder / "files" / f"{i}.jpg", quality=92)
        Image.fromarray(label).save(folder / "files" / f"{i}.png")
    for i in range(n_images):
        for part, ending in (("images", "jpg"), ("labels", "png")):
            os.symlink(f"../files/{i % N_FILES}.{ending}", folder / part / f"{i:07}.{ending}")
    write_text(folder / "dataset.yaml", json.dumps({
        "name": "large", "classes": list(CAMVID.class_names), "ignore": CAMVID.ignore_index,
        "image_endings": [".jpg"], "train": {"images": "images", "labels": "labels"}}))


class Phases:
    """What a process of its own does; each returns how many images it was about."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self._folder = args, Path(args.dir)
        self._spec = read_config(self._folder / "dataset.yaml").spec
        self._device = select_device(args.device)

    def _load(self, kind: str, **kwargs: object) -> LoadedSplit:
        return load_split(self._spec, "train", dir_dataset=self._folder, grid=self._spec.grid,
                          n_workers=self._args.n_workers, **kwargs, cache=Cache(
                              kind=kind, folder=self._folder / "cache", device=self._device))

    def list(self) -> int:
        return len(list_samples(self._folder, self._spec.splits["train"]))

    def cache(self) -> int:
        return len(self._load("disk", limit=None if self._args.full else N_CACHED))

    start = cache

    def none(self) -> int:
        return len(self._load("none"))

    def files(self) -> int:
        split = self._load("none", with_labels=False)
        rng = np.random.default_rng(0)
        pixels = [rng.integers(0, size, (10, 2)) for size in split.sizes]
        asked = Query(names=split.names, sizes=split.sizes, pixels=pixels, strategy="random",
                      seed=0)
        write_query(self._folder / "query", asked, max_mask_gb=2)
        about = dict(names=split.names, sizes=split.sizes)
        query = read_query(self._folder / "query" / "query.json", **about)
        labels = [np.zeros(SIZE, np.uint8)] * len(split)
        path = self._folder / "query" / "labels.csv"
        write_labels(path, answer(query.pixels, labels, split.sizes), names=split.names)
        read_labels(path, **about, n_classes=1)
        return len(split)

    def first_query(self) -> int:
        split = self._load("none", n_images=self._args.query_images)
        initial_query(split, n=10, excluded=void_masks(split), seed=0)
        return len(split)

    def query(self) -> int:
        split = self._load("none", n_images=self._args.query_images)
        torch.manual_seed(0)
        network = build_network("deeplab", backbone="mobilenetv2", n_classes=self._spec.n_classes)
        network = network.to(device=self._device, memory_format=torch.channels_last)
        predictor = Predictor(device=self._device, batch_size=8, mean=MEAN, std=STD)
        next_query(network, split, predictor=predictor, excluded=void_masks(split), seed=0,
                   strategy="margin_sampling", n=10, top_n_percent=0.05, reverse_order=False,
                   round_index=1)
        return len(split)

    def epoch(self, kind: str) -> int:
        """The second of two epochs at batch 4, and what making its batches alone takes."""
        figures = measure_round([
            "--p_dataset_config", str(self._folder / "dataset.yaml"), "--weight_type", "random",
            "--n_images", str(self._args.epoch_images), "--cache", kind, "--dir_cache",
            str(self._folder / "cache"), "--n_workers", str(self._args.n_workers),
            "--device", str(self._device)], n_epochs=2)
        self.figures = {"seconds": figures["epoch_s"], "batches_s": figures["batches_s"]}
        return self._args.epoch_images

    def run(self, name: str) -> dict:
        """Figures of a phase: `epoch_ram`, `epoch_disk` and `epoch_none` are epochs."""
        phase: Callable[[], int] = (lambda: self.epoch(name.removeprefix("epoch_"))) \
            if name.startswith("epoch_") else getattr(self, name)
        start = time.perf_counter(), time.process_time()
        n_images = phase()
        return {"images": n_images, "peak_mb": peak_memory_mb(self._device)} | getattr(
            self, "figures", passed(start))


def passed(start: tuple[float, float]) -> dict[str, float]:
    """Since `start`: seconds, and seconds of processor time of all threads, which say more than the
    former where other programs run."""
    return {"seconds": time.perf_counter() - start[0],
            "cpu_seconds": time.process_time() - start[1]}


PHASES = ("list", "cache", "start", "none", "files", "first_query", "query", "epoch_ram",
          "epoch_disk", "epoch_none")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--query_images", type=int, default=300)
    parser.add_argument("--epoch_images", type=int, default=40)
    parser.add_argument("--n_workers", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="cache all images (42 GB)")
    parser.add_argument("--dir", help="where to write the data set and the cache; kept")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--measure", choices=PHASES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(Phases(args).run(args.measure)))
        return 0
    figures: dict[str, dict] = {}
    about = {"machine": describe_machine(select_device(args.device)), "images": args.images,
             "size": list(SIZE), "n_workers": args.n_workers, "figures": figures}
    with tempfile.TemporaryDirectory() as temporary:
        args.dir = args.dir or temporary
        if not (Path(args.dir) / "dataset.yaml").exists():
            write_dataset(Path(args.dir), n_images=args.images)
        for name in args.phases:
            figures[name] = measured(name, args)
            if args.json:
                write_json(args.json, about)
    print(json.dumps(about["machine"]))
    print_table(["phase", "images", "s", f"s for {args.images}", "CPU s", "peak MB"], [
        [name, f["images"], f["seconds"], f["seconds"] * args.images / f["images"],
         f.get("cpu_seconds", ""), f"{f['peak_mb']:.0f}"] for name, f in figures.items()])
    return 0


def measured(name: str, args: argparse.Namespace) -> dict:
    words = [word for key in ("dir", "images", "query_images", "epoch_images", "n_workers",
                              "device") for word in (f"--{key}", str(getattr(args, key)))]
    command = [sys.executable, __file__, "--measure", name, *words, *["--full"] * args.full]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


if __name__ == "__main__":
    run_program(main)
