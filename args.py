"""The flags, and RECIPES: what users edit. RECIPES < flags. Parsing has no side effects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import DATASET_NAMES, DATASETS, DatasetSpec
from datasets.annotations import CONFLICTS
from datasets.config import read_config
from datasets.labellers import LABELLERS
from datasets.voc import VOC_AUGMENTED
from networks import BACKBONES, NETWORKS, OUTPUT_STRIDES
from networks.weights import RELEASES
from query import ACQUISITIONS
from utils.acquisition import MC_N_STEPS, VOTE_TYPE, VOTE_TYPES, needs
from utils.errors import InputError
from utils.optimisation import OPTIMIZERS, SCHEDULES
from utils.parsing import Parser, fraction, integer, known, named, non_negative, positive

# What the paper (arXiv 2104.06394) and its authors' repository do on all three data sets.
_PAPER = dict(
    downsample=1, batch_size=4, n_epochs=50, n_pixels_by_us=10, max_budget=100,
    weight_type="supervised",
    optimizer="adam", lr=5e-4, backbone_lr_factor=0.1, weight_decay=2e-4, schedule="poly",
    scale=(0.5, 2.0), flip_p=0.5,
    jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8,  # brightness, contrast, saturation, hue
    grey_p=0.2, blur_p=0.5, blur_sigma=(0.1, 2.0),
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),  # ImageNet's
)
# One plain dictionary for each dataset; every key is a flag's default. A value that depends on
# the network is a dictionary by --network_name.
RECIPES: dict[str, dict] = {
    "camvid": _PAPER | dict(
        dir_dataset="data/CamVid",
        schedule="multistep",
        mean=(0.41189, 0.42513, 0.43267), std=(0.27414, 0.28506, 0.28285),
    ),
    "cityscapes": _PAPER | dict(
        dir_dataset="data/cityscapes", downsample=4,
        mean=(0.28690, 0.32513, 0.28389), std=(0.18696, 0.19017, 0.18720),
    ),
    "voc": _PAPER | dict(
        dir_dataset="data/VOC", crop=(320, 320), batch_size=10, max_budget=50,
        optimizer="sgd", lr=1e-2, weight_decay={"deeplab": 5e-4, "FPN": 1e-4},
        jitter=(0.1, 0.1, 0.1, 0.1),
    ),
    # A dataset of one's own (--p_dataset_config); `flags:` in its file wins over this.
    "own": _PAPER | dict(jitter=(0.4, 0.4, 0.4, 0.1)),
    # scripts/demo.sh: drawn scenes at 120x160, from random weights, in minutes on a CPU.
    "demo": dict(
        dir_dataset="data/demo", downsample=2, batch_size=4, n_epochs=22, eval_interval=11,
        n_pixels_by_us=10, max_budget=30, weight_type="random",
        optimizer="adam", lr=3e-3, backbone_lr_factor=1.0, weight_decay=1e-4, schedule="poly",
        scale=(0.8, 1.25), flip_p=0.5, jitter=(0.2, 0.2, 0.2, 0.05), jitter_p=0.5,
        grey_p=0.0, blur_p=0.0, blur_sigma=(0.1, 2.0),
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    ),
}

# Flags that say where and how to compute, not what: they may differ when a run is continued.
# `weights` and `p_dataset_config` are compared by the files' content instead.
NOT_THE_EXPERIMENT = frozenset({
    "dir_root", "dir_dataset", "dir_checkpoints", "device", "n_workers", "eval_batch_size",
    "max_budget", "max_mask_gb", "overwrite", "weights", "dir_annotations", "on_conflict",
    "allow_partial", "p_dataset_config",
})
# The repository's own folder: results do not depend on where the program is called from.
DIR_ROOT = Path(__file__).resolve().parent
_NOT_GIVEN = object()
WEIGHT_TYPES = ("random", *RELEASES)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of train.py, defaults from the dataset's recipe. Raises InputError."""
    parser = _train_parser()
    args = parser.parse_args(argv)
    recipe = _recipe(parser, args)
    # Once more with a default that no flag can have: which flags were given, whatever their values.
    parser.set_defaults(**dict.fromkeys(vars(args), _NOT_GIVEN))
    given = {name for name, value in vars(parser.parse_args(argv)).items()
             if value is not _NOT_GIVEN}
    for name in recipe.keys() - given:
        value = recipe[name]
        setattr(args, name, value[args.network_name] if isinstance(value, dict) else value)
    if args.weight_type not in WEIGHT_TYPES:
        args.weights = args.weight_type
    if args.weights is not None:
        args.weight_type = "file"
    args.output_stride = args.output_stride or NETWORKS[args.network_name].output_stride
    _check(args, given)
    args.n_init_pixels = args.n_init_pixels or args.n_pixels_by_us
    if args.debug:
        args.n_epochs = min(args.n_epochs, 2)
        args.max_budget = min(args.max_budget, args.n_init_pixels + args.n_pixels_by_us)
    for name in ("dir_dataset", "dir_checkpoints"):
        if name not in given:  # an absolute path in RECIPES stays what it is
            setattr(args, name, str(Path(args.dir_root) / getattr(args, name)))
    return args


def _recipe(parser: Parser, args: argparse.Namespace) -> dict:
    """The defaults of the dataset that the flags name; `args.dataset_name` becomes its own name.
    Raises InputError, also for what a dataset's file gives as flags and is none."""
    if args.p_dataset_config is None:
        if args.dataset_name is None:
            raise InputError("which dataset? Give --dataset_name or --p_dataset_config")
        args.dataset_name = DATASET_NAMES[args.dataset_name]
        recipe, where = RECIPES[args.dataset_name], f"RECIPES[{args.dataset_name!r}] in args.py"
        own: dict = {}
    else:
        if args.dataset_name is not None:
            raise InputError("--dataset_name and --p_dataset_config: give one of them")
        dataset = read_config(args.p_dataset_config)
        args.dataset_name = dataset.spec.name
        recipe = RECIPES["own"] | {"dir_dataset": str(dataset.root)}
        own, where = dataset.flags, f"{args.p_dataset_config}, flags"
    unknown = (recipe.keys() | own.keys()) - vars(args).keys()
    if unknown:
        raise InputError(f"{where}: {', '.join(sorted(unknown))} is no flag of train.py")
    return recipe | parser.parse_values(own, where=where)


def spec_of(args: argparse.Namespace) -> DatasetSpec:
    """The dataset, with the splits that the flags choose. Raises InputError."""
    if args.p_dataset_config is not None:
        spec = read_config(args.p_dataset_config).spec
    else:
        spec = DATASETS[args.dataset_name]
    if args.use_augmented_dataset:
        if spec.name != VOC_AUGMENTED.name:
            raise InputError("--use_augmented_dataset is for PASCAL VOC (--dataset_name voc)")
        spec = VOC_AUGMENTED
    if args.eval_full and not (spec.reduced_copy and args.downsample > 1):
        raise InputError("--eval_full has no meaning here: label maps are not reduced")
    if args.eval_split is not None:
        if args.eval_split not in spec.splits:
            raise InputError(f"--eval_split {args.eval_split}: {spec.name} has "
                             f"{', '.join(spec.splits)}")
        spec = replace(spec, evaluation=args.eval_split)
    return spec


def _check(args: argparse.Namespace, given: set[str]) -> None:
    """What no single flag can know. Raises InputError."""
    for name in ("scale", "blur_sigma"):
        smallest, largest = getattr(args, name)
        if smallest > largest:
            raise InputError(f"--{name} {smallest} {largest}: MIN is above MAX")
    if args.label_noise_redraw and not args.label_noise:
        raise InputError("--label_noise_redraw has no meaning without --label_noise")
    if args.label_noise and args.labeller == "human":
        raise InputError("--label_noise makes mistakes for the oracle; people make their own")
    if args.labeller != "human":
        useless = sorted(given & {"dir_annotations", "on_conflict", "allow_partial"})
        if useless:
            raise InputError(f"--{useless[0]} has no meaning without --labeller human")
    if args.n_pixels_by_us == 0:
        useless = sorted(given & {"n_init_pixels", "max_budget", "query_strategy", "top_n_percent",
                                  "reverse_order", "labeller", "init_query", "use_mc_dropout",
                                  "mc_n_steps", "vote_type", "label_noise"})
        if useless:
            raise InputError(f"--{useless[0]} has no meaning with --n_pixels_by_us 0 (full masks)")
        return
    check_asking(**asking_kwargs(args))
    first = args.n_init_pixels or args.n_pixels_by_us
    if args.max_budget < first:
        raise InputError(f"--max_budget {args.max_budget} is below one round of {first} pixels per "
                         "image; raise it or lower --n_pixels_by_us")


def check_asking(*, strategy: str, reverse_order: bool, top_n_percent: float,
                 use_mc_dropout: bool = False, mc_n_steps: int = MC_N_STEPS,
                 vote_type: str = VOTE_TYPE, **_: object) -> None:
    """Raises InputError for a combination without a meaning, and for a checkpoint's strategy that
    is not there."""
    if reverse_order and top_n_percent == 0:
        raise InputError("--reverse_order takes the most uncertain of a drawn --top_n_percent of "
                         "the pixels; with 0 none are drawn")
    if strategy not in ACQUISITIONS:
        raise InputError(f"unknown query strategy {strategy!r}; choose from "
                         f"{', '.join(ACQUISITIONS)}")
    if use_mc_dropout:
        if "committee" in needs(strategy) and mc_n_steps < 2:
            raise InputError(f"--query_strategy {strategy} compares passes: give --mc_n_steps of "
                             "at least 2")
        return
    if "committee" in needs(strategy):
        raise InputError(f"--query_strategy {strategy} asks a committee: give --use_mc_dropout")
    for flag, value, default in (("mc_n_steps", mc_n_steps, MC_N_STEPS),
                                 ("vote_type", vote_type, VOTE_TYPE)):
        if value != default:
            raise InputError(f"--{flag} {value} has no meaning without --use_mc_dropout")


def _train_parser() -> argparse.ArgumentParser:
    parser = Parser(description="Rounds of asking for a few pixels an image and training on them.")
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_name", type=named("dataset", DATASET_NAMES),
                       help=known(DATASET_NAMES))
    group.add_argument("--p_dataset_config", metavar="YAML",
                       help="a dataset of your own (README) instead of --dataset_name")
    group.add_argument("--dir_root", default=str(DIR_ROOT),
                       help="where the default folders for data and checkpoints are")
    group.add_argument("--dir_dataset", help="the dataset's root folder")
    group.add_argument("--dir_checkpoints", default="checkpoints", help="where runs are written")
    group.add_argument("--downsample", type=integer(1), help="shrink the grid by this factor")
    group.add_argument("--n_images", type=integer(2),
                       help="train on so many images, drawn by --seed (default: all)")
    group.add_argument("--eval_split", metavar="NAME",
                       help="evaluate on this split (default: what the paper evaluates on)")
    group.add_argument("--eval_full", action="store_true",
                       help="cityscapes: evaluate against the label maps at 1024x2048")
    group.add_argument("--use_augmented_dataset", action="store_true",
                       help="voc: train on 10,582 images, with the labels of SBD")
    group.add_argument("--n_workers", type=integer(0), default=4,
                       help="threads that decode and reduce images")

    group = parser.add_argument_group("network")
    group.add_argument("--network_name", type=named("network", NETWORKS), default="deeplab",
                       help=known(NETWORKS))
    group.add_argument("--backbone", type=named("backbone", BACKBONES), default="mobilenetv2",
                       help=known(BACKBONES))
    own = ", ".join(f"{name} {network.output_stride}" for name, network in NETWORKS.items())
    group.add_argument("--output_stride", type=int, choices=OUTPUT_STRIDES,
                       help=f"default: {own}")
    group.add_argument("--width_multiplier", type=integer(1), default=1,
                       help="resnet50 and resnet101: how many times as wide the 3x3 convolutions "
                            "are (2: Wide ResNets); mobilenetv2: all of it")
    group.add_argument("--mc_dropout_p", type=fraction, default=0.2,
                       help="dropout before the classifier")
    group = group.add_mutually_exclusive_group()
    group.add_argument("--weight_type", type=_weight_type, metavar="NAME|FILE",
                       help="the backbone's start: random, or downloaded: supervised "
                            "(torchvision's ImageNet weights), moco_v2 (of 800 epochs, resnet50); "
                            "or as --weights FILE")
    group.add_argument("--weights", metavar="FILE",
                       help="the backbone's start: a file of torchvision, MoCo, DINO, SwAV, "
                            "DeepCluster v2, Barlow Twins or this program")

    _add_asking(parser.add_argument_group("asking"), n_pixels_help="; 0: train on full masks")
    group = parser.add_argument_group("answers")
    group.add_argument("--labeller", type=named("labeller", LABELLERS), default="oracle",
                       help="oracle: the label maps answer; human: a person does, by the "
                            "annotation tool, and the program waits (exit code 3)")
    group.add_argument("--dir_annotations", nargs="+", metavar="DIR",
                       default=[str(DIR_ROOT / "annotation_tool" / "logs")],
                       help="where the tool writes: annotators' folders, or folders with "
                            "<dataset>_<annotator> in them")
    group.add_argument("--on_conflict", type=named("rule", CONFLICTS), default="error",
                       help="where annotators disagree: " + ", ".join(CONFLICTS))
    group.add_argument("--allow_partial", action="store_true",
                       help="go on without the answers that are missing")
    group.add_argument("--label_noise", type=fraction, default=0.0,
                       help="make this fraction of the oracle's answers a uniformly drawn wrong "
                            "class; the first round stays clean")
    group.add_argument("--label_noise_redraw", action="store_true",
                       help="draw the mistakes anew in every epoch, not once for each pixel")
    group.add_argument("--init_query", metavar="FILE",
                       help="ask these pixels in the first round: a query.json, or a query.npy of "
                            "the training images in sorted order")
    group = parser.add_argument_group("budget")
    group.add_argument("--n_init_pixels", type=integer(0), default=0,
                       help="pixels per image in the first round (0: as --n_pixels_by_us)")
    group.add_argument("--max_budget", type=integer(1), help="pixels per image in the end")

    group = parser.add_argument_group("training")
    group.add_argument("--n_epochs", type=integer(1))
    group.add_argument("--batch_size", type=integer(2), help="at least 2, for batch norm")
    group.add_argument("--optimizer", type=named("optimizer", OPTIMIZERS), help=known(OPTIMIZERS))
    group.add_argument("--lr", type=positive, help="learning rate")
    group.add_argument("--backbone_lr_factor", type=positive,
                       help="the backbone's learning rate is --lr times this")
    group.add_argument("--weight_decay", type=non_negative)
    group.add_argument("--schedule", type=named("schedule", SCHEDULES), help=known(SCHEDULES))
    group.add_argument("--eval_interval", type=integer(1), default=1,
                       help="evaluate every so many epochs, and after the last")
    group.add_argument("--eval_batch_size", type=integer(1), default=8)

    group = parser.add_argument_group("augmentation")
    group.add_argument("--crop", type=integer(1), nargs=2, metavar=("HEIGHT", "WIDTH"),
                       help="size of the crops to train on (default: the grid's)")
    for name in ("scale", "blur_sigma"):
        group.add_argument(f"--{name}", type=positive, nargs=2, metavar=("MIN", "MAX"))
    for name in ("flip_p", "jitter_p", "grey_p", "blur_p"):
        group.add_argument(f"--{name}", type=fraction)
    group.add_argument("--jitter", type=non_negative, nargs=4,
                       metavar=("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"))
    group.add_argument("--mean", type=fraction, nargs=3, metavar=("R", "G", "B"))
    group.add_argument("--std", type=positive, nargs=3, metavar=("R", "G", "B"))

    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=integer(0), default=0)
    group.add_argument("--suffix", default="", help="ends the experiment's name")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    group.add_argument("--amp", choices=("auto", "on", "off"), default="auto",
                       help="train in bfloat16; auto: where the hardware has it")
    group.add_argument("--overwrite", action="store_true",
                       help="move an old run aside and start afresh")
    group.add_argument("--max_mask_gb", type=positive, default=2.0,
                       help="do not write query.npy above this size")
    group.add_argument("--debug", action="store_true",
                       help="a quick check: 8 images, 2 epochs, 2 rounds, a folder of its own")
    return parser


def _add_asking(group: argparse._ActionsContainer, *, n_pixels_help: str = "") -> None:
    group.add_argument("--n_pixels_by_us", type=integer(0),
                       help=f"pixels per image to ask for in a round{n_pixels_help}")
    group.add_argument("-qs", "--query_strategy", default="margin_sampling",
                       type=named("query strategy", ACQUISITIONS), help=known(ACQUISITIONS))
    group.add_argument("--top_n_percent", type=fraction, default=0.05,
                       help="draw from this fraction (0.05: 5 %%) of most uncertain pixels; "
                            "0: take the most uncertain ones")
    group.add_argument("--reverse_order", action="store_true",
                       help="draw that fraction first, then take the most uncertain of it")
    group.add_argument("--use_mc_dropout", action="store_true",
                       help="ask a committee: passes of the network with dropout active")
    group.add_argument("--mc_n_steps", type=integer(1), default=MC_N_STEPS,
                       help="how many passes")
    group.add_argument("--vote_type", type=named("vote type", VOTE_TYPES), default=VOTE_TYPE,
                       help="the committee's distribution: soft, the mean of the probabilities, or "
                            "hard, the histogram of the passes' likeliest classes")


def parse_query_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of query.py. What is not said is asked as in the checkpoint's run (None here)."""
    parser = Parser(description="Choose the next pixels to ask with a trained network.")
    parser.add_argument("--checkpoint", required=True, help="a last.pt or best.pt of train.py")
    parser.add_argument("--dir_dataset", required=True, help="the dataset's root folder")
    parser.add_argument("--dir_output", help="default: next_query beside the checkpoint")
    _add_asking(parser)
    parser.set_defaults(query_strategy=None, top_n_percent=None, reverse_order=None,
                        use_mc_dropout=None, mc_n_steps=None, vote_type=None)
    parser.add_argument("--seed", type=integer(0))
    parser.add_argument("--exclude", nargs="+", default=[], metavar="FILE",
                        help="query.json or query.npy files whose pixels are not asked again, "
                             "besides those of the checkpoint's run")
    parser.add_argument("--exclude_void", action="store_true",
                        help="do not ask where the ground truth is void")
    parser.add_argument("--batch_size", type=integer(1), default=8)
    parser.add_argument("--n_workers", type=integer(0), default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max_mask_gb", type=positive, default=2.0)
    return parser.parse_args(argv)


# --- what the parts of the program take, as keyword arguments -----------------------------------


def network_kwargs(args: argparse.Namespace, *, n_classes: int) -> dict:
    return dict(name=args.network_name, backbone=args.backbone, output_stride=args.output_stride,
                width_multiplier=args.width_multiplier, mc_dropout_p=args.mc_dropout_p,
                n_classes=n_classes)


def augmentation_kwargs(args: argparse.Namespace, *, canvas: tuple[int, int]) -> dict:
    """`canvas`: (height, width) of the largest grid."""
    return dict(crop=tuple(args.crop or canvas), scale=args.scale, flip_p=args.flip_p,
                jitter=args.jitter, jitter_p=args.jitter_p, grey_p=args.grey_p, blur_p=args.blur_p,
                blur_sigma=args.blur_sigma, mean=args.mean, std=args.std)


def optimizer_kwargs(args: argparse.Namespace) -> dict:
    return dict(name=args.optimizer, lr=args.lr, backbone_lr_factor=args.backbone_lr_factor,
                weight_decay=args.weight_decay)


def annotator_kwargs(args: argparse.Namespace) -> dict:
    return dict(classes_file=args.p_dataset_config, dir_dataset=args.dir_dataset,
                dir_annotations=args.dir_annotations, on_conflict=args.on_conflict,
                allow_partial=args.allow_partial)


def asking_kwargs(args: argparse.Namespace) -> dict:
    return dict(strategy=args.query_strategy, n=args.n_pixels_by_us,
                top_n_percent=args.top_n_percent, reverse_order=args.reverse_order,
                use_mc_dropout=args.use_mc_dropout, mc_n_steps=args.mc_n_steps,
                vote_type=args.vote_type)


def experiment_name(args: argparse.Namespace) -> str:
    """`{dataset}[_d{downsample}]_{network}_{backbone}_{strategy}_{n}_p{top}_{seed}[_{suffix}]`."""
    asking = (f"{args.query_strategy}_{args.n_pixels_by_us}_p{args.top_n_percent:g}"
              if args.n_pixels_by_us else "full")
    return "_".join([
        args.dataset_name, *([f"d{args.downsample}"] if args.downsample > 1 else []),
        args.network_name, args.backbone, asking, str(args.seed),
        *([args.suffix] if args.suffix else []), *(["debug"] if args.debug else []),
    ])


def _weight_type(value: str) -> str:
    if value not in WEIGHT_TYPES and not Path(value).is_file():
        raise argparse.ArgumentTypeError(f"unknown weight type {value!r}; choose from "
                                         f"{', '.join(WEIGHT_TYPES)}, or give a file")
    return value
