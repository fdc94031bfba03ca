"""The flags of train.py, query.py and predict.py: names, types, help. What they mean together is in
args.py."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import MappingProxyType

from datasets import DATASET_NAMES
from datasets.annotations import CONFLICTS
from datasets.caches import CACHES
from datasets.labellers import LABELLERS
from networks import BACKBONES, NETWORKS, OUTPUT_STRIDES
from networks.weights import RELEASES
from utils.acquisition import ACQUISITIONS, MC_N_STEPS, VOTE_TYPE, VOTE_TYPES, needs
from utils.contradictions import JUDGES, SCORES
from utils.dropout import MC_LAYERS
from utils.export import EXPORTS
from utils.optimisation import OPTIMIZERS, SCHEDULES
from utils.parsing import Parser, fraction, integer, known, named, non_negative, positive
from utils.selection import ALLOCATIONS
from utils.teacher import TARGETS
from utils.tiles import TILE_STRIDE
from utils.tracking import TRACKERS

# The repository's own folder: results do not depend on where the program is called from.
DIR_ROOT = Path(__file__).resolve().parents[1]
WEIGHT_TYPES = ("random", *RELEASES)


def train_parser(recipes: Iterable[str]) -> Parser:
    """The flags of train.py; None is what the recipe says, of which `recipes` are the names."""
    parser = Parser(description="Rounds of asking for a few pixels an image and training on them.")
    parser.add_argument("--recipe", type=named("recipe", recipes), default="paper",
                        help=f"{known(recipes)}: the paper's settings, or what gave better "
                             "networks with the same pixels; flags win over both")
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
    _add_cache(group, dir_cache="data/cache")

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
    group.add_argument("--min_steps", type=integer(0), default=0, metavar="N",
                       help="train for more epochs where --n_epochs are fewer steps than this, "
                            "as with few images")
    group.add_argument("--batch_size", type=integer(1),
                       help="images a step, of all processes together; at least 2 for each and "
                            "each of --grad_accum, for batch norm")
    group.add_argument("--grad_accum", type=integer(1), default=1, metavar="K",
                       help="make a step of a batch in K pieces, for a device without the memory "
                            "for all of it; batch norm sees pieces")
    group.add_argument("--freeze_bn", action="store_true",
                       help="keep batch norm's statistics as they are at the start of a round")
    group.add_argument("--sync_bn", action="store_true",
                       help="batch norm's statistics over all processes; GPUs only")
    group.add_argument("--optimizer", type=named("optimizer", OPTIMIZERS), help=known(OPTIMIZERS))
    group.add_argument("--lr", type=positive, help="learning rate")
    group.add_argument("--backbone_lr_factor", type=positive,
                       help="the backbone's learning rate is --lr times this")
    group.add_argument("--weight_decay", type=non_negative)
    group.add_argument("--schedule", type=named("schedule", SCHEDULES), help=known(SCHEDULES))
    group.add_argument("--class_balance", type=non_negative, default=0.0, metavar="POWER",
                       help="weigh the loss of a class by its frequency among the labels to the "
                            "power of minus this; 0.5 is a good start")
    group.add_argument("--logit_adjustment", type=non_negative, default=0.0, metavar="TAU",
                       help="add TAU * log(frequency) to the logits in training")
    group.add_argument("--focal", type=non_negative, default=0.0, metavar="GAMMA",
                       help="focal loss: weigh a label by (1 - p)^GAMMA")
    group.add_argument("--ema", type=fraction, default=0.0, metavar="DECAY",
                       help="evaluate, keep and ask an exponential moving average of the weights, "
                            "of this decay a step; 0: the weights themselves")
    group.add_argument("--teacher", type=non_negative, default=0.0, metavar="WEIGHT",
                       help="learn from unlabelled points what the average of --ema says there, "
                            "with this weight beside the labels'")
    group.add_argument("--teacher_targets", type=named("targets", TARGETS), default="hard",
                       help=known(TARGETS))
    group.add_argument("--teacher_threshold", type=fraction, default=0.5,
                       help="confidence below which the teacher is not listened to")
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
    group.add_argument("--compile", action="store_true",
                       help="once in a round, on a GPU capture the training step as a CUDA graph "
                            "that is replayed (one process, --grad_accum 1), on the CPU compile it "
                            "(torch.compile, with a C++ compiler)")
    group.add_argument("--overwrite", action="store_true",
                       help="move an old run aside and start afresh")
    group.add_argument("--max_mask_gb", type=positive, default=2.0,
                       help="do not write query.npy above this size")
    group.add_argument("--tracker", type=named("tracker", TRACKERS), default="none",
                       help=f"send scalars and pictures there too: {known(TRACKERS)}")
    group.add_argument("--debug", action="store_true",
                       help="a quick check: 8 images, 2 epochs, 2 rounds, a folder of its own")
    return parser


@cache
def unset_flags() -> MappingProxyType[str, object]:
    """What the flags of train.py are that no recipe sets, if they are not given: so were runs made
    that are older than a flag."""
    parsed = vars(train_parser(("paper",)).parse_args([]))
    return MappingProxyType({name: value for name, value in parsed.items() if value is not None})


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
    group.add_argument("--ask_balance", type=non_negative, default=0.0, metavar="POWER",
                       help="ask more where a rare class is predicted: the pixel's rank in its "
                            "image times the number of labels that class has, to the power of "
                            "minus this")
    group.add_argument("--min_distance", type=non_negative, default=0.0, metavar="PIXELS",
                       help="after the first round do not ask nearer than this to another asked "
                            "pixel, while --top_n_percent has others")
    group.add_argument("--allocate", type=named("allocation", ALLOCATIONS), default="image",
                       help="image: as many pixels of each image; global: more of the images "
                            "with more of the data set's most uncertain pixels, from a quarter "
                            "to four times as many")
    group.add_argument("--use_mc_dropout", action="store_true",
                       help="ask a committee: passes of the network with dropout active")
    group.add_argument("--mc_n_steps", type=integer(1), default=MC_N_STEPS,
                       help="how many passes")
    group.add_argument("--mc_layers", choices=MC_LAYERS, default="all",
                       help="which dropout drops in them; last: only that before the classifier, "
                            "so that what is before it is computed once for all passes")
    group.add_argument("--vote_type", type=named("vote type", VOTE_TYPES), default=VOTE_TYPE,
                       help="the committee's distribution: soft, the mean of the probabilities, or "
                            "hard, the histogram of the passes' likeliest classes")
    group.add_argument("--temperature", type=positive, default=1.0,
                       help="divide the logits by this when asking, in every pass; python -m "
                            "utils.temperature fits it")


def _add_cache(group: argparse._ActionsContainer, *, dir_cache: str) -> None:
    group.add_argument("--cache", choices=("auto", *CACHES), default="auto",
                       help="where the decoded images are: on the device, in the host's memory, in "
                            "a file that is written once, or nowhere (files are read for each "
                            "batch); auto: the first of device, ram and disk with room")
    group.add_argument("--dir_cache", default=dir_cache, help="where --cache disk writes")


def _add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE|URL",
                        help="a last.pt or best.pt of train.py, a file of python -m utils.zoo, or "
                             "where to download one: https://... or hf://OWNER/REPO/PATH[@REVISION]"
                             ", with #sha256=HEX behind it to be sure")


def query_parser() -> Parser:
    """The flags of query.py; None is what is asked as in the checkpoint's run."""
    parser = Parser(description="Choose the next pixels to ask with a trained network.")
    _add_checkpoint(parser)
    parser.add_argument("--dir_dataset", required=True, help="the dataset's root folder")
    parser.add_argument("--dir_output",
                        help="default: next_query beside the checkpoint, or here if that is an "
                             "address")
    _add_asking(parser)
    parser.set_defaults(query_strategy=None, top_n_percent=None, reverse_order=None,
                        ask_balance=None, min_distance=None, allocate=None, use_mc_dropout=None,
                        mc_n_steps=None, mc_layers=None, vote_type=None, temperature=None)
    parser.add_argument("--seed", type=integer(0))
    parser.add_argument("--exclude", nargs="+", default=[], metavar="FILE",
                        help="query.json or query.npy files whose pixels are not asked again, "
                             "besides those of the checkpoint's run")
    parser.add_argument("--exclude_void", action="store_true",
                        help="do not ask where the ground truth is void")
    parser.add_argument("--batch_size", type=integer(1), default=8)
    parser.add_argument("--n_workers", type=integer(0), default=4)
    _add_cache(parser, dir_cache=str(DIR_ROOT / "data" / "cache"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max_mask_gb", type=positive, default=2.0)
    return parser


def temperature_parser() -> Parser:
    """The flags of utils/temperature.py."""
    parser = Parser(description="Fit the temperature that calibrates a network, on label maps that "
                                "it was not trained on.")
    _add_checkpoint(parser)
    parser.add_argument("--dir_dataset", required=True, help="the dataset's root folder")
    parser.add_argument("--split", metavar="NAME", required=True,
                        help="whose label maps; not the split that you report")
    parser.add_argument("--batch_size", type=integer(1), default=8)
    parser.add_argument("--n_workers", type=integer(0), default=4)
    parser.add_argument("--device", default="auto")
    return parser


def predict_parser() -> Parser:
    """The flags of predict.py."""
    parser = Parser(
        description="Class maps of images and videos by a trained network; the checkpoint has all "
                    "that is needed for it.",
        epilog="The same command continues: what is in the output folder already is not made "
               "again. Pixels are taken as they are stored (an EXIF rotation is not applied), as "
               "in training. Exit codes: 0: all done; 1: done, but some files could not be read "
               "and are listed; 2: nothing to be done with this input; 130: interrupted.")
    _add_checkpoint(parser)
    parser.add_argument("--export", choices=EXPORTS,
                        help="write the network to the file --output instead, for other programs: "
                             "onnx, for ONNX Runtime and others; pt2, for torch.export.load")
    group = parser.add_argument_group("files")
    group.add_argument("--input", nargs="+", metavar="FILE|DIR|GLOB",
                       help="images and videos; of folders all that is in them. Names are those "
                            "below the deepest folder that all have in common")
    group.add_argument("--output", required=True, metavar="DIR",
                       help="a folder of its own: a/b.jpg becomes a/b.png there, class indices "
                            "with the classes' colours as palette, at the image's own size; "
                            "a/b.mov becomes a/b.mp4, covered by the colours")
    group.add_argument("--overlay", action="store_true",
                       help="also a/b.overlay.png: the image, half covered by the colours")
    group.add_argument("--probabilities", action="store_true",
                       help="also a/b.npz: `probabilities` (C, H, W) in float16, and `classes`")
    group.add_argument("--uncertainty", nargs="?", const="margin_sampling", metavar="NAME",
                       type=named("uncertainty", _of_probabilities()),
                       help=f"also a/b.NAME.png in grey: NAME is {known(_of_probabilities())} "
                            "(margin_sampling if not said); black is a certain class, white as "
                            "uncertain as equally likely classes are")
    group.add_argument("--labels", metavar="DIR",
                       help="evaluate against the label maps there, in the data set's own coding, "
                            "with the images' names: a table, and evaluation.json in the output")
    group.add_argument("--overwrite", action="store_true",
                       help="make again what is there already; predictions of other inputs, or "
                            "made in another way, are moved aside")

    group = parser.add_argument_group("prediction")
    group.add_argument("--size", nargs="+", default="fit", metavar="SIZE",
                       help="what the network sees. fit: the grid it was trained on, but where "
                            "that has one fixed height and width, an image of another aspect "
                            "ratio keeps its own, with as many pixels as the grid; grid: exactly "
                            "the training's, stretched if need be; image: the file's own pixels; "
                            "or HEIGHT WIDTH")
    group.add_argument("--tile", type=integer(TILE_STRIDE), nargs=2, metavar=("HEIGHT", "WIDTH"),
                       help="cut what is larger than this (at the network's size, see --size) "
                            "into overlapping tiles, whose logits are blended: for images that do "
                            "not fit into memory at once. Multiples of 32. Files above Pillow's "
                            "limit of 179 million pixels are read only with it")
    group.add_argument("--overlap", type=integer(0), metavar="PIXELS",
                       help="of neighbouring tiles, at least; default: a quarter of the tile's "
                            "shorter side")
    group.add_argument("--flip", action="store_true",
                       help="average the probabilities with those of the mirror image")
    group.add_argument("--scales", type=positive, nargs="+", default=[1.0], metavar="FACTOR",
                       help="average the probabilities over these multiples of the network's size")

    group = parser.add_argument_group("run")
    group.add_argument("--batch_size", type=integer(1), default=8,
                       help="images, tiles or frames that the network sees at a time")
    group.add_argument("--n_workers", type=integer(0), default=4,
                       help="threads that read and write files")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    group.add_argument("--amp", choices=("auto", "on", "off"), default="auto",
                       help="compute in bfloat16; auto: where the hardware has it")
    return parser


def _of_probabilities() -> list[str]:
    """The acquisition functions that need nothing else."""
    return [name for name in ACQUISITIONS if not needs(name)]


def suspicious_parser() -> Parser:
    """The flags of utils/suspicious.py; None is what the run was made with."""
    parser = Parser(description="List the answers of a run that its networks contradict, for a "
                                "second look, and bring the corrected answers back.")
    parser.add_argument("run", metavar="RUN", help="the folder of a run, with an args.json")
    parser.add_argument("--dir_dataset", help="the dataset's root folder (default: the run's)")
    parser.add_argument("--round", type=int, default=-1,
                        help="look at the run as it was after this round; -1: the last finished "
                             "one")
    parser.add_argument("--n", type=integer(1), default=50, help="list at most so many")
    parser.add_argument("--min_confidence", type=fraction, default=0.9,
                        help="list an answer if the networks give all other classes together at "
                             "least this probability, and one of them more than the given one")
    parser.add_argument("--networks", type=named("choice", JUDGES), default="last",
                        help="which judge an answer: the last round's; the newest one that was "
                             "trained before it was given (of the first round's answers: the last "
                             "one); or all rounds', the mean of their probabilities")
    parser.add_argument("--score", type=named("score", SCORES), default="self_confidence",
                        help="rank by how improbable the given class is, or by the likeliest other "
                             "class' probability less the given one's")
    parser.add_argument("--output", metavar="DIR", help="default: suspicious in the run's folder")
    parser.add_argument("--dir_annotations", nargs="+", metavar="DIR",
                        help="annotators' folders, to say who gave an answer (default: the run's)")
    parser.add_argument("--batch_size", type=integer(1), default=8)
    parser.add_argument("--n_workers", type=integer(0), default=4)
    parser.add_argument("--device", default="auto")
    group = parser.add_argument_group("the way back, after the second look")
    group.add_argument("--apply", nargs="?", const="", metavar="DIR",
                       help="write a new run with the corrected answers beside this one; DIR: "
                            "where the second look was written (default: answers in --output)")
    group.add_argument("--suffix", help="ends the new run's name (default: corrected)")
    group.add_argument("--on_conflict", type=named("rule", CONFLICTS),
                       help="where the second look of several annotators disagrees: "
                            + ", ".join(CONFLICTS) + " (default: error)")
    return parser


def _weight_type(value: str) -> str:
    if value not in WEIGHT_TYPES and not Path(value).is_file():
        raise argparse.ArgumentTypeError(f"unknown weight type {value!r}; choose from "
                                         f"{', '.join(WEIGHT_TYPES)}, or give a file")
    return value
