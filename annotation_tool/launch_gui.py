"""Open the annotation window: `python annotation_tool/launch_gui.py --dataset_name demo`.

Edit `dataset_to_paths`, or give flags, which win over it (`--help` lists them)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_CAMVID = os.path.abspath(os.environ["CAMVID_DIR"]) if os.environ.get("CAMVID_DIR") else (
    "data/CamVid")
# Where the images of a dataset are (dir_imgs), its label maps if it has any (dir_gts: answers are
# scored against them at the end), and which pixels to ask (path_query: a round's query.json, or a
# query.npy; None: a seeded random query is written). Relative paths are the repository's.
dataset_to_paths: dict[str, dict[str, str | None]] = {
    "camvid": {
        "dir_imgs": f"{_CAMVID}/train",
        "dir_gts": f"{_CAMVID}/trainannot",
        "path_query": None,
    },
    "demo": {
        "dir_imgs": "data/demo/train",
        "dir_gts": "data/demo/trainannot",
        "path_query": "annotation_tool/query.npy",
    },
}

_ROOT = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__" and sys.path[0] != _ROOT:
    sys.path[0] = _ROOT  # as a script: the repository's packages, not this folder's modules


def main(argv: Sequence[str] | None = None) -> int:
    from annotation_tool import options
    from utils.errors import InputError

    parser = options.parser("Label the asked pixels with one key each.")
    parser.add_argument("--annotator", default=options.default_annotator(),
                        help="your name: answers go to a folder of your own")
    args = parser.parse_args(argv)
    task = options.prepare(args, dataset_to_paths)
    try:
        from annotation_tool.window import run
    except ImportError as error:
        raise InputError(f"this Python cannot open windows ({error}); on Debian and Ubuntu: apt "
                         "install python3-tk and pip install Pillow, or use the browser: python -m "
                         "annotation_tool.serve") from error
    session = task.open(args.annotator)
    try:
        run(session, truth=task.truth, title=f"PixelPick: {task.classes.name}, {args.annotator}",
            ui_scale=args.ui_scale, marker_size=args.marker_size, edge_size=args.edge_size,
            show_others=args.display_all_queries, practice=args.practice)
    finally:
        session.close()
    print(options.farewell(session, truth=task.truth))
    return 0


if __name__ == "__main__":
    from utils.errors import run_program

    run_program(main)
