"""The flags, and RECIPES: what users edit. RECIPES < flags. Parsing has no side effects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import DATASET_NAMES, DATASETS, DatasetSpec
from datasets.config import read_config
from datasets.voc import VOC_AUGMENTED
from networks import NETWORKS
from utils.acquisition import ACQUISITIONS, MC_N_STEPS, VOTE_TYPE, needs
from utils.errors import InputError
from utils.flags import WEIGHT_TYPES, predict_parser, query_parser, train_parser
from utils.parsing import Parser
from utils.run_groups import ABOUT_POINTS, ABOUT_THE_TEACHER
from utils.runs import run_name
from utils.segmenter import SIZES
from utils.tiles import TILE_STRIDE

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

# What --recipe changes on top of that.
CHANGES: dict[str, dict] = {
    "paper": {},
    # Chosen on a part of CamVid's training images (README).
    "plus": dict(class_balance=0.5, schedule="poly", backbone_lr_factor=1.0),
}

_NOT_GIVEN = object()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of train.py, defaults from the dataset's recipe. Raises InputError."""
    parser = train_parser(CHANGES)
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
        args.n_epochs, args.min_steps = min(args.n_epochs, 2), 0
        args.max_budget = min(args.max_budget, args.n_init_pixels + args.n_pixels_by_us)
    for name in ("dir_dataset", "dir_checkpoints", "dir_cache"):
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
    changes = CHANGES[args.recipe]
    for values, place in ((recipe | own, where), (changes, f"CHANGES[{args.recipe!r}] in args.py")):
        if unknown := values.keys() - vars(args).keys():
            raise InputError(f"{place}: {', '.join(sorted(unknown))} is no flag of train.py")
    if "recipe" in own:
        raise InputError(f"{where}: recipe is for the command line; give --recipe there")
    own = parser.parse_values(own, where=where)
    n_pixels = (recipe | own)["n_pixels_by_us"] if args.n_pixels_by_us is None else \
        args.n_pixels_by_us
    if n_pixels == 0:
        changes = {name: value for name, value in changes.items() if name not in ABOUT_POINTS}
        own = {name: value for name, value in own.items() if name not in ABOUT_THE_TEACHER}
    return recipe | changes | own


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
    if args.freeze_bn and args.sync_bn:
        raise InputError("--sync_bn has no meaning with --freeze_bn: there are no statistics to "
                         "take over all processes")
    if args.batch_size == 1 and not args.freeze_bn:
        raise InputError("--batch_size 1: batch norm needs at least 2 images; or give --freeze_bn")
    if args.label_noise_redraw and not args.label_noise:
        raise InputError("--label_noise_redraw has no meaning without --label_noise")
    if args.label_noise and args.labeller == "human":
        raise InputError("--label_noise makes mistakes for the oracle; people make their own")
    if args.labeller != "human":
        useless = sorted(given & {"dir_annotations", "on_conflict", "allow_partial"})
        if useless:
            raise InputError(f"--{useless[0]} has no meaning without --labeller human")
    if not args.teacher:
        useless = sorted(given & {"teacher_targets", "teacher_threshold"})
        if useless:
            raise InputError(f"--{useless[0]} has no meaning without --teacher")
    if args.teacher and args.teacher_threshold == 1:
        raise InputError("--teacher_threshold 1: nothing is confident enough; give less than 1")
    if args.n_pixels_by_us == 0:
        useless = sorted(given & (ABOUT_POINTS - {"n_pixels_by_us"}))
        if useless:
            raise InputError(f"--{useless[0]} has no meaning with --n_pixels_by_us 0 (full masks)")
        return
    check_asking(**asking_kwargs(args))
    if args.teacher and not args.ema:
        raise InputError("--teacher is an average of the weights: give --ema as well")
    first = args.n_init_pixels or args.n_pixels_by_us
    if args.max_budget < first:
        raise InputError(f"--max_budget {args.max_budget} is below one round of {first} pixels per "
                         "image; raise it or lower --n_pixels_by_us")


def check_asking(*, strategy: str, reverse_order: bool, top_n_percent: float,
                 use_mc_dropout: bool = False, mc_n_steps: int = MC_N_STEPS,
                 mc_layers: str = "all", vote_type: str = VOTE_TYPE, ask_balance: float = 0.0,
                 **_: object) -> None:
    """Raises InputError for a combination without a meaning, and for a checkpoint's strategy that
    is not there."""
    if reverse_order and top_n_percent == 0:
        raise InputError("--reverse_order takes the most uncertain of a drawn --top_n_percent of "
                         "the pixels; with 0 none are drawn")
    if ask_balance and top_n_percent == 1 and not reverse_order:
        raise InputError(f"--ask_balance {ask_balance:g} has no meaning with --top_n_percent 1: "
                         "all pixels are drawn alike")
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
                                 ("mc_layers", mc_layers, "all"),
                                 ("vote_type", vote_type, VOTE_TYPE)):
        if value != default:
            raise InputError(f"--{flag} {value} has no meaning without --use_mc_dropout")


def parse_query_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of query.py. What is not said is asked as in the checkpoint's run (None here)."""
    return query_parser().parse_args(argv)


def parse_predict_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of predict.py; `size` becomes a name of SIZES or (height, width). Raises
    InputError."""
    parser = predict_parser()
    args = parser.parse_args(argv)
    if bool(args.input) == bool(args.export):
        raise InputError("give either --input, what to predict, or --export" if args.export else
                         "which images? Give --input (or --export)")
    useless = sorted(name for name, value in vars(args).items() if args.export
                     and name not in ("checkpoint", "export", "output")
                     and value != parser.get_default(name))
    if useless:
        raise InputError(f"--{useless[0]} has no meaning with --export")
    words = args.size.split() if isinstance(args.size, str) else args.size
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
        args.size = tuple(map(int, words))
    elif len(words) == 1 and words[0] in SIZES:
        (args.size,) = words
    else:
        raise InputError(f"--size {' '.join(words)}: choose from {', '.join(SIZES)}, or give "
                         "HEIGHT WIDTH in pixels")
    if args.tile is None:
        if args.overlap is not None:
            raise InputError("--overlap has no meaning without --tile")
        return args
    if any(side % TILE_STRIDE for side in args.tile):
        nearest = [max(round(side / TILE_STRIDE), 1) * TILE_STRIDE for side in args.tile]
        raise InputError(f"--tile {args.tile[0]} {args.tile[1]}: give multiples of {TILE_STRIDE}, "
                         f"for example {nearest[0]} {nearest[1]}")
    if args.overlap is None:
        args.overlap = min(min(args.tile) // 4, min(args.tile) - TILE_STRIDE)
    if args.overlap > min(args.tile) - TILE_STRIDE:
        raise InputError(f"--overlap {args.overlap}: at most {min(args.tile) - TILE_STRIDE} with "
                         f"--tile {args.tile[0]} {args.tile[1]}")
    return args


# --- what the parts of the program take, as keyword arguments -----------------------------------


def cache_kwargs(args: argparse.Namespace) -> dict:
    return dict(kind=args.cache, folder=Path(args.dir_cache))


def data_kwargs(args: argparse.Namespace) -> dict:
    return dict(dir_dataset=args.dir_dataset, downsample=args.downsample, n_workers=args.n_workers,
                eval_full=args.eval_full, n_images=args.n_images, seed=args.seed,
                limit=8 if args.debug else None)


def network_kwargs(args: argparse.Namespace, *, n_classes: int) -> dict:
    return dict(name=args.network_name, backbone=args.backbone, output_stride=args.output_stride,
                width_multiplier=args.width_multiplier, mc_dropout_p=args.mc_dropout_p,
                n_classes=n_classes)


def pretrained_kwargs(args: argparse.Namespace) -> dict:
    return dict(weight_type=args.weight_type, path=args.weights, name=args.backbone,
                width_multiplier=args.width_multiplier)


def augmentation_kwargs(args: argparse.Namespace, *, canvas: tuple[int, int]) -> dict:
    """`canvas`: (height, width) of the largest grid."""
    return dict(crop=tuple(args.crop or canvas), scale=args.scale, flip_p=args.flip_p,
                jitter=args.jitter, jitter_p=args.jitter_p, grey_p=args.grey_p, blur_p=args.blur_p,
                blur_sigma=args.blur_sigma, mean=args.mean, std=args.std)


def optimizer_kwargs(args: argparse.Namespace) -> dict:
    return dict(name=args.optimizer, lr=args.lr, backbone_lr_factor=args.backbone_lr_factor,
                weight_decay=args.weight_decay)


def loss_kwargs(args: argparse.Namespace) -> dict:
    return dict(class_balance=args.class_balance, logit_adjustment=args.logit_adjustment,
                focal=args.focal)


def teacher_kwargs(args: argparse.Namespace) -> dict | None:
    """Of utils.teacher.Teacher, None without one."""
    if not args.teacher:
        return None
    return dict(weight=args.teacher, targets=args.teacher_targets,
                threshold=args.teacher_threshold)


def splitting_kwargs(args: argparse.Namespace, *, rank: int, world_size: int) -> dict:
    """How this process' part of a batch is taken, datasets.batches.Splitting. Raises InputError for
    a batch that is too small to be split."""
    n_pieces = world_size * args.grad_accum
    smallest_piece = 1 if args.freeze_bn or (args.sync_bn and world_size > 1) else 2
    if args.batch_size < n_pieces * smallest_piece:
        images, instead = "1 image", ""
        if smallest_piece == 2:
            images = "2 images, for batch norm,"
            instead = ", or --freeze_bn" + ", or on GPUs --sync_bn" * (world_size > 1)
        raise InputError(
            f"--batch_size {args.batch_size}: {world_size} process{'es' * (world_size > 1)} with "
            f"--grad_accum {args.grad_accum} need at least {images} each: give --batch_size "
            f"{n_pieces * smallest_piece} or more, or fewer processes or pieces (their product at "
            f"most {args.batch_size // smallest_piece}){instead}")
    return dict(rank=rank, world_size=world_size, n_pieces=args.grad_accum,
                smallest_batch=1 if args.freeze_bn else 2, smallest_piece=smallest_piece)


def annotator_kwargs(args: argparse.Namespace) -> dict:
    return dict(classes_file=args.p_dataset_config, dir_dataset=args.dir_dataset,
                dir_annotations=args.dir_annotations, on_conflict=args.on_conflict,
                allow_partial=args.allow_partial)


def asking_kwargs(args: argparse.Namespace) -> dict:
    return dict(strategy=args.query_strategy, n=args.n_pixels_by_us,
                top_n_percent=args.top_n_percent, reverse_order=args.reverse_order,
                use_mc_dropout=args.use_mc_dropout, mc_n_steps=args.mc_n_steps,
                mc_layers=args.mc_layers, vote_type=args.vote_type, temperature=args.temperature,
                ask_balance=args.ask_balance, min_distance=args.min_distance,
                allocate=args.allocate)


def experiment_name(args: argparse.Namespace) -> str:
    return run_name(vars(args))
