"""The flags, and RECIPES: what users edit. Order of authority: RECIPES < flags.

Parsing has no side effects: it creates nothing, seeds nothing, prints nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from datasets import DATASET_NAMES, DATASETS
from datasets.annotations import CONFLICTS
from datasets.labellers import LABELLERS
from networks import BACKBONES, NETWORKS, OUTPUT_STRIDES
from query import ACQUISITIONS
from utils.errors import InputError
from utils.optimisation import OPTIMIZERS, SCHEDULES
from utils.parsing import Parser

# One plain dictionary for each dataset; every key is a flag's default.
RECIPES: dict[str, dict] = {
    # CamVid as in the paper (arXiv 2104.06394) and its authors' repository.
    "camvid": dict(
        dir_dataset="data/CamVid",
        downsample=1,
        batch_size=4,
        n_epochs=50,
        n_pixels_by_us=10,
        max_budget=100,
        weight_type="supervised",
        optimizer="adam",
        lr=5e-4,
        backbone_lr_factor=0.1,
        weight_decay=2e-4,
        schedule="multistep",
        scale=(0.5, 2.0),
        flip_p=0.5,
        jitter=(0.8, 0.8, 0.8, 0.2),  # brightness, contrast, saturation, hue
        jitter_p=0.8,
        grey_p=0.2,
        blur_p=0.5,
        blur_sigma=(0.1, 2.0),
        mean=(0.41189, 0.42513, 0.43267),
        std=(0.27414, 0.28506, 0.28285),
    ),
    # scripts/demo.sh: drawn scenes at 120x160, from random weights, in minutes on a CPU.
    "demo": dict(
        dir_dataset="data/demo",
        downsample=2,
        batch_size=4,
        n_epochs=22,
        eval_interval=11,
        n_pixels_by_us=10,
        max_budget=30,
        weight_type="random",
        optimizer="adam",
        lr=3e-3,
        backbone_lr_factor=1.0,
        weight_decay=1e-4,
        schedule="poly",
        scale=(0.8, 1.25),
        flip_p=0.5,
        jitter=(0.2, 0.2, 0.2, 0.05),
        jitter_p=0.5,
        grey_p=0.0,
        blur_p=0.0,
        blur_sigma=(0.1, 2.0),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    ),
}

# Flags that say where and how to compute, not what: they may differ when a run is continued.
# `weights` is compared by the file's content instead.
NOT_THE_EXPERIMENT = frozenset({
    "dir_root", "dir_dataset", "dir_checkpoints", "device", "n_workers", "eval_batch_size",
    "max_budget", "max_mask_gb", "overwrite", "weights", "dir_annotations", "on_conflict",
    "allow_partial",
})
# The repository's own folder: results do not depend on where the program is called from.
DIR_ROOT = Path(__file__).resolve().parent
_NOT_GIVEN = object()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of train.py, defaults from the dataset's recipe. Raises InputError."""
    parser = _train_parser()
    args = parser.parse_args(argv)
    args.dataset_name = DATASET_NAMES[args.dataset_name]
    recipe = RECIPES[args.dataset_name]
    unknown = recipe.keys() - vars(args).keys()
    if unknown:
        raise InputError(f"RECIPES[{args.dataset_name!r}] in args.py: {', '.join(sorted(unknown))} "
                         "is no flag of train.py")
    # Once more with a default that no flag can have: which flags were given, whatever their values.
    parser.set_defaults(**dict.fromkeys(vars(args), _NOT_GIVEN))
    given = {name for name, value in vars(parser.parse_args(argv)).items()
             if value is not _NOT_GIVEN}
    for name in recipe.keys() - given:
        setattr(args, name, recipe[name])
    if args.weights is not None:
        args.weight_type = "file"
    _check(args, given)
    args.n_init_pixels = args.n_init_pixels or args.n_pixels_by_us
    if args.debug:
        args.n_epochs = min(args.n_epochs, 2)
        args.max_budget = min(args.max_budget, args.n_init_pixels + args.n_pixels_by_us)
    for name in ("dir_dataset", "dir_checkpoints"):
        if name not in given:  # an absolute path in RECIPES stays what it is
            setattr(args, name, str(Path(args.dir_root) / getattr(args, name)))
    return args


def _check(args: argparse.Namespace, given: set[str]) -> None:
    """What no single flag can know. Raises InputError."""
    for name in ("scale", "blur_sigma"):
        smallest, largest = getattr(args, name)
        if smallest > largest:
            raise InputError(f"--{name} {smallest} {largest}: MIN is above MAX")
    if args.labeller != "human":
        useless = sorted(given & {"dir_annotations", "on_conflict", "allow_partial"})
        if useless:
            raise InputError(f"--{useless[0]} has no meaning without --labeller human")
    if args.n_pixels_by_us == 0:
        useless = sorted(given & {"n_init_pixels", "max_budget", "query_strategy", "top_n_percent",
                                  "reverse_order", "labeller", "init_query"})
        if useless:
            raise InputError(f"--{useless[0]} has no meaning with --n_pixels_by_us 0 (full masks)")
        return
    check_asking(**asking_kwargs(args))
    first = args.n_init_pixels or args.n_pixels_by_us
    if args.max_budget < first:
        raise InputError(f"--max_budget {args.max_budget} is below one round of {first} pixels per "
                         "image; raise it or lower --n_pixels_by_us")


def check_asking(*, reverse_order: bool, top_n_percent: float, **_: object) -> None:
    """Raises InputError for a combination without a meaning."""
    if reverse_order and top_n_percent == 0:
        raise InputError("--reverse_order takes the most uncertain of a drawn --top_n_percent of "
                         "the pixels; with 0 none are drawn")


def _train_parser() -> argparse.ArgumentParser:
    parser = Parser(description="Rounds of asking for a few pixels an image and training on them.")
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_name", required=True,
                       type=_name("dataset", DATASET_NAMES), help=_known(DATASET_NAMES))
    group.add_argument("--dir_root", default=str(DIR_ROOT),
                       help="where the default folders for data and checkpoints are")
    group.add_argument("--dir_dataset", help="the dataset's root folder")
    group.add_argument("--dir_checkpoints", default="checkpoints", help="where runs are written")
    group.add_argument("--downsample", type=_integer(1), help="shrink the grid by this factor")
    group.add_argument("--n_workers", type=_integer(0), default=4, help="threads that decode")

    group = parser.add_argument_group("network")
    group.add_argument("--network_name", type=_name("network", NETWORKS), default="deeplab",
                       help=_known(NETWORKS))
    group.add_argument("--backbone", type=_name("backbone", BACKBONES), default="mobilenetv2",
                       help=_known(BACKBONES))
    group.add_argument("--output_stride", type=int, choices=OUTPUT_STRIDES, default=16)
    group.add_argument("--mc_dropout_p", type=_fraction, default=0.2,
                       help="dropout before the classifier")
    group = group.add_mutually_exclusive_group()
    group.add_argument("--weight_type", type=_name("weight type", ("supervised", "random")),
                       help="the backbone's start: supervised (torchvision's ImageNet weights, "
                            "downloaded), or random")
    group.add_argument("--weights", metavar="FILE",
                       help="the backbone's start: a state dict in torchvision's names")

    _add_asking(parser.add_argument_group("asking"), n_pixels_help="; 0: train on full masks")
    group = parser.add_argument_group("answers")
    group.add_argument("--labeller", type=_name("labeller", LABELLERS), default="oracle",
                       help="oracle: the label maps answer; human: a person does, by the "
                            "annotation tool, and the program waits (exit code 3)")
    group.add_argument("--dir_annotations", nargs="+", metavar="DIR",
                       default=[str(DIR_ROOT / "annotation_tool" / "logs")],
                       help="where the tool writes: annotators' folders, or folders with "
                            "<dataset>_<annotator> in them")
    group.add_argument("--on_conflict", type=_name("rule", CONFLICTS), default="error",
                       help="where annotators disagree: " + ", ".join(CONFLICTS))
    group.add_argument("--allow_partial", action="store_true",
                       help="go on without the answers that are missing")
    group.add_argument("--init_query", metavar="FILE",
                       help="ask these pixels in the first round: a query.json, or a query.npy of "
                            "the training images in sorted order")
    group = parser.add_argument_group("budget")
    group.add_argument("--n_init_pixels", type=_integer(0), default=0,
                       help="pixels per image in the first round (0: as --n_pixels_by_us)")
    group.add_argument("--max_budget", type=_integer(1), help="pixels per image in the end")

    group = parser.add_argument_group("training")
    group.add_argument("--n_epochs", type=_integer(1))
    group.add_argument("--batch_size", type=_integer(2), help="at least 2, for batch norm")
    group.add_argument("--optimizer", type=_name("optimizer", OPTIMIZERS), help=_known(OPTIMIZERS))
    group.add_argument("--lr", type=_positive, help="learning rate")
    group.add_argument("--backbone_lr_factor", type=_positive,
                       help="the backbone's learning rate is --lr times this")
    group.add_argument("--weight_decay", type=_non_negative)
    group.add_argument("--schedule", type=_name("schedule", SCHEDULES), help=_known(SCHEDULES))
    group.add_argument("--eval_interval", type=_integer(1), default=1,
                       help="evaluate every so many epochs, and after the last")
    group.add_argument("--eval_batch_size", type=_integer(1), default=8)

    group = parser.add_argument_group("augmentation")
    group.add_argument("--scale", type=_positive, nargs=2, metavar=("MIN", "MAX"))
    group.add_argument("--flip_p", type=_fraction)
    group.add_argument("--jitter", type=_non_negative, nargs=4,
                       metavar=("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"))
    group.add_argument("--jitter_p", type=_fraction)
    group.add_argument("--grey_p", type=_fraction)
    group.add_argument("--blur_p", type=_fraction)
    group.add_argument("--blur_sigma", type=_positive, nargs=2, metavar=("MIN", "MAX"))
    group.add_argument("--mean", type=_fraction, nargs=3, metavar=("R", "G", "B"))
    group.add_argument("--std", type=_positive, nargs=3, metavar=("R", "G", "B"))

    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=_integer(0), default=0)
    group.add_argument("--suffix", default="", help="ends the experiment's name")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    group.add_argument("--amp", choices=("auto", "on", "off"), default="auto",
                       help="train in bfloat16; auto: where the hardware has it")
    group.add_argument("--overwrite", action="store_true",
                       help="move an old run aside and start afresh")
    group.add_argument("--max_mask_gb", type=_positive, default=2.0,
                       help="do not write query.npy above this size")
    group.add_argument("--debug", action="store_true",
                       help="a quick check: 8 images, 2 epochs, 2 rounds, a folder of its own")
    return parser


def _add_asking(group: argparse._ActionsContainer, *, n_pixels_help: str = "") -> None:
    group.add_argument("--n_pixels_by_us", type=_integer(0),
                       help=f"pixels per image to ask for in a round{n_pixels_help}")
    group.add_argument("-qs", "--query_strategy", default="margin_sampling",
                       type=_name("query strategy", ACQUISITIONS), help=_known(ACQUISITIONS))
    group.add_argument("--top_n_percent", type=_fraction, default=0.05,
                       help="draw from this fraction (0.05: 5 %%) of most uncertain pixels; "
                            "0: take the most uncertain ones")
    group.add_argument("--reverse_order", action="store_true",
                       help="draw that fraction first, then take the most uncertain of it")


def parse_query_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of query.py. What is not said is asked as in the checkpoint's run (None here)."""
    parser = Parser(description="Choose the next pixels to ask with a trained network.")
    parser.add_argument("--checkpoint", required=True, help="a last.pt or best.pt of train.py")
    parser.add_argument("--dir_dataset", required=True, help="the dataset's root folder")
    parser.add_argument("--dir_output", help="default: next_query beside the checkpoint")
    _add_asking(parser)
    parser.set_defaults(query_strategy=None, top_n_percent=None, reverse_order=None)
    parser.add_argument("--seed", type=_integer(0))
    parser.add_argument("--exclude", nargs="+", default=[], metavar="FILE",
                        help="query.json or query.npy files whose pixels are not asked again, "
                             "besides those of the checkpoint's run")
    parser.add_argument("--exclude_void", action="store_true",
                        help="do not ask where the ground truth is void")
    parser.add_argument("--batch_size", type=_integer(1), default=8)
    parser.add_argument("--n_workers", type=_integer(0), default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max_mask_gb", type=_positive, default=2.0)
    return parser.parse_args(argv)


# --- what the parts of the program take, as keyword arguments -----------------------------------


def grid_of(args: argparse.Namespace) -> tuple[int, int]:
    height, width = DATASETS[args.dataset_name].grid
    return max(height // args.downsample, 1), max(width // args.downsample, 1)


def network_kwargs(args: argparse.Namespace) -> dict:
    return dict(name=args.network_name, backbone=args.backbone, output_stride=args.output_stride,
                mc_dropout_p=args.mc_dropout_p, n_classes=DATASETS[args.dataset_name].n_classes)


def augmentation_kwargs(args: argparse.Namespace) -> dict:
    return dict(crop=grid_of(args), scale=args.scale, flip_p=args.flip_p, jitter=args.jitter,
                jitter_p=args.jitter_p, grey_p=args.grey_p, blur_p=args.blur_p,
                blur_sigma=args.blur_sigma, mean=args.mean, std=args.std)


def optimizer_kwargs(args: argparse.Namespace) -> dict:
    return dict(name=args.optimizer, lr=args.lr, backbone_lr_factor=args.backbone_lr_factor,
                weight_decay=args.weight_decay)


def annotator_kwargs(args: argparse.Namespace) -> dict:
    return dict(dir_dataset=args.dir_dataset, dir_annotations=args.dir_annotations,
                on_conflict=args.on_conflict, allow_partial=args.allow_partial)


def asking_kwargs(args: argparse.Namespace) -> dict:
    return dict(strategy=args.query_strategy, n=args.n_pixels_by_us,
                top_n_percent=args.top_n_percent, reverse_order=args.reverse_order)


def experiment_name(args: argparse.Namespace) -> str:
    """`{dataset}[_d{downsample}]_{network}_{backbone}_{strategy}_{n}_p{top}_{seed}[_{suffix}]`."""
    asking = (f"{args.query_strategy}_{args.n_pixels_by_us}_p{args.top_n_percent:g}"
              if args.n_pixels_by_us else "full")
    return "_".join([
        args.dataset_name, *([f"d{args.downsample}"] if args.downsample > 1 else []),
        args.network_name, args.backbone, asking, str(args.seed),
        *([args.suffix] if args.suffix else []), *(["debug"] if args.debug else []),
    ])


# --- types of flags -----------------------------------------------------------------------------


def _known(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)


def _name(what: str, names: Iterable[str]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in names:
            raise argparse.ArgumentTypeError(
                f"unknown {what} {value!r}; choose from {', '.join(names)}")
        return value

    return convert


def _number(kind: Callable[[str], float], check: Callable[[float], bool],
            expected: str) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not check(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return convert


def _integer(minimum: int) -> Callable[[str], float]:
    return _number(int, lambda value: value >= minimum, f"an integer of at least {minimum}")


_positive = _number(float, lambda value: 0 < value < float("inf"), "a positive number")
_non_negative = _number(float, lambda value: 0 <= value < float("inf"), "a number of at least 0")
_fraction = _number(float, lambda value: 0 <= value <= 1, "a fraction between 0 and 1")
