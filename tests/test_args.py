"""Flags: recipes give way to flags, and what cannot be meant is refused in one line."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

import args
from datasets import DATASETS
from utils.errors import InputError


def parse(*argv: str):
    return args.parse_arguments(["--dataset_name", "cv", *argv])


def test_recipe_is_the_default_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(args.RECIPES, "camvid", args.RECIPES["camvid"] | {"lr": 0.125})
    assert parse().lr == 0.125
    assert parse("--lr", "0.5").lr == 0.5


def test_the_papers_recipe_for_camvid() -> None:
    parsed = parse()
    assert (parsed.n_pixels_by_us, parsed.max_budget, parsed.n_epochs, parsed.batch_size) == (
        10, 100, 50, 4)
    assert (parsed.lr, parsed.backbone_lr_factor, parsed.weight_decay) == (5e-4, 0.1, 2e-4)
    assert (parsed.top_n_percent, parsed.query_strategy) == (0.05, "margin_sampling")
    grid = args.spec_of(parsed).grid
    assert grid.of((720, 960)) == (360, 480) and grid.divided(2).of((1, 1)) == (180, 240)
    assert args.spec_of(parsed).evaluation == "test"
    assert args.spec_of(parse("--eval_split", "val")).evaluation == "val"


def test_every_dataset_has_a_recipe_whose_keys_are_flags() -> None:
    assert args.RECIPES.keys() == DATASETS.keys() | {"own"}
    for name, recipe in args.RECIPES.items():
        if name == "own":
            continue
        parsed = vars(args.parse_arguments(["--dataset_name", name]))
        assert recipe.keys() <= parsed.keys()
        optional = {"weights", "init_query", "p_dataset_config", "n_images", "eval_split", "crop"}
        assert {flag for flag, value in parsed.items() if value is None} <= optional


def test_plus_changes_the_recipe_and_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(args.CHANGES, "plus", dict(class_balance=0.5, ema=0.9, teacher=1.0))
    plus = parse("--recipe", "plus", "--ema", "0.5")
    assert (plus.class_balance, plus.ema, plus.teacher) == (0.5, 0.5, 1.0)
    changed = {name for name, value in vars(parse()).items() if value != vars(plus)[name]}
    assert changed == {"recipe", "class_balance", "ema", "teacher"}
    # What is about points alone is not for full masks.
    full = parse("--recipe", "plus", "--n_pixels_by_us", "0")
    assert (full.class_balance, full.ema, full.teacher) == (0.5, 0.9, 0.0)


def test_own_files_flags_and_recipes(tmp_path: Path) -> None:
    """A file's flags win over --recipe, which it cannot choose; a teacher is not for full masks."""
    path = tmp_path / "own.yaml"

    def with_flags(flags: str, *argv: str) -> Namespace:
        path.write_text("name: own\nclasses: [a, b]\ntrain: {images: i, labels: l}\n"
                        f"flags: {{{flags}}}\n")
        return args.parse_arguments(["--p_dataset_config", str(path), *argv])

    taught = "teacher: 0.5, teacher_threshold: 0.3, ema: 0.9"
    points = with_flags(taught, "--recipe", "plus")
    assert (points.teacher, points.ema, points.class_balance) == (0.5, 0.9, 0.5)
    full = with_flags(taught, "--n_pixels_by_us", "0")
    assert (full.teacher, full.teacher_threshold, full.ema) == (0.0, 0.5, 0.9)
    with pytest.raises(InputError, match="own.yaml, flags: recipe is for the command line"):
        with_flags("recipe: plus")


def test_debug_is_quick_whatever_the_flags() -> None:
    assert (parse("--debug", "--min_steps", "4000").min_steps, parse("--debug").n_epochs) == (0, 2)


def test_every_change_is_of_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for recipe in args.CHANGES:
        assert args.CHANGES[recipe].items() <= vars(parse("--recipe", recipe)).items()
    monkeypatch.setitem(args.CHANGES, "plus", {"emma": 0.9})
    with pytest.raises(InputError, match=r"CHANGES\['plus'\] in args.py: emma is no flag"):
        parse("--recipe", "plus")


def test_weight_type_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "moco.pth.tar"
    path.touch()
    for flag in ("--weights", "--weight_type"):
        parsed = parse(flag, str(path))
        assert (parsed.weight_type, parsed.weights) == ("file", str(path))
    assert (parse().weight_type, parse().weights) == ("supervised", None)


def test_output_stride_is_the_networks_unless_given() -> None:
    assert args.network_kwargs(parse(), n_classes=11)["output_stride"] == 16
    for flags, expected in (((), 8), (("--output_stride", "16"), 16)):
        parsed = parse("--network_name", "FPN", *flags, "--width_multiplier", "2")
        kwargs = args.network_kwargs(parsed, n_classes=11)
        assert (kwargs["output_stride"], kwargs["width_multiplier"]) == (expected, 2)


def test_a_misspelt_key_of_a_recipe_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(args.RECIPES, "camvid", args.RECIPES["camvid"] | {"n_epoch": 3})
    with pytest.raises(InputError, match="n_epoch is no flag"):
        parse()


def test_folders_given_are_the_callers_and_defaults_the_programs() -> None:
    assert parse("--dir_dataset", "here").dir_dataset == "here"
    assert parse("--dir_root", "/there").dir_dataset == "/there/data/CamVid"
    assert parse("--dir_root", "/there").dir_checkpoints == "/there/checkpoints"


def test_the_demos_grid_is_small() -> None:
    demo = args.parse_arguments(["--dataset_name", "demo"])
    height, width = args.spec_of(demo).grid.divided(demo.downsample).of((1, 1))
    assert height <= 120 and width <= 160


@pytest.mark.parametrize(("argv", "name"), [
    ((), "camvid_deeplab_mobilenetv2_margin_sampling_10_p0.05_0"),
    (("--downsample", "2", "--seed", "3", "--suffix", "x", "--top_n_percent", "0"),
     "camvid_d2_deeplab_mobilenetv2_margin_sampling_10_p0_3_x"),
    (("-qs", "entropy", "--backbone", "resnet50", "--n_pixels_by_us", "5"),
     "camvid_deeplab_resnet50_entropy_5_p0.05_0"),
    (("--n_pixels_by_us", "0"), "camvid_deeplab_mobilenetv2_full_0"),
    (("--recipe", "plus"), "camvid_deeplab_mobilenetv2_margin_sampling_10_p0.05_plus_0"),
])
def test_experiment_name(argv: tuple[str, ...], name: str) -> None:
    assert args.experiment_name(parse(*argv)) == name


@pytest.mark.parametrize(("argv", "message"), [
    (("--dataset_name", "kitti"), "unknown dataset 'kitti'; choose from camvid, cv, cityscapes, "
                                  "cs, voc, voc2012, demo"),
    (("--network_name", "unet"), "unknown network 'unet'; choose from deeplab"),
    (("--backbone", "vgg"), "unknown backbone 'vgg'; choose from mobilenetv2, resnet18, "),
    (("-qs", "badge"), "unknown query strategy 'badge'; choose from margin_sampling, "),
    (("--weight_type", "dino"), "unknown weight type 'dino'"),
    (("--optimizer", "lion"), "unknown optimizer 'lion'"),
    (("--max_budget", "9"), "--max_budget 9 is below one round of 10"),
    (("--max_budget", "19", "--n_init_pixels", "20"), "below one round of 20"),
    (("--top_n_percent", "5"), "'5' is not a fraction"),
    (("--batch_size", "1"), "at least 2"),
    (("--lr", "-1"), "'-1' is not a positive number"),
    (("--lr", "nan"), "'nan' is not a positive number"),
    (("--weights", "a.pth", "--weight_type", "random"), "not allowed with"),
    (("--weight_type", "moco"), "unknown weight type 'moco'; choose from random, supervised, "
                                "moco_v2, or give a file"),
    (("--width_multiplier", "0"), "an integer of at least 1"),
    (("--n_pixels_by_us", "0", "--n_init_pixels", "5"), "--n_init_pixels has no meaning"),
    (("--n_pixels_by_us", "0", "-qs", "entropy"), "--query_strategy has no meaning"),
    (("--reverse_order", "--top_n_percent", "0"), "none are drawn"),
    (("--scale", "2", "0.5"), "MIN is above MAX"),
    (("--n_pixel", "3"), "unrecognized arguments"),
    (("--recipe", "minus"), "unknown recipe 'minus'; choose from paper, plus"),
    (("--allocate", "class"), "unknown allocation 'class'; choose from image, global"),
    (("--n_pixels_by_us", "0", "--ask_balance", "1"), "--ask_balance has no meaning"),
    (("--teacher", "1"), "--teacher is an average of the weights: give --ema"),
    (("--teacher_targets", "soft"), "--teacher_targets has no meaning without --teacher"),
    (("--teacher", "1", "--ema", "0.9", "--teacher_threshold", "1"), "give less than 1"),
    (("--teacher", "1", "--ema", "0.9", "--n_pixels_by_us", "0"), "--teacher has no meaning"),
    (("--class_balance", "-1"), "is not a number of at least 0"),
    (("--schedule", "linear"), "unknown schedule 'linear'"),
])
def test_bad_flags_are_one_clear_line(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)
