"""Tiny data made on the fly: drawn scenes in CamVid's layout, and a quick train.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from datasets.synthetic import write_street_scenes

# A grid of 30x40 (CamVid's divided by 12), two rounds of two epochs.
QUICK = {"--dataset_name": "cv", "--downsample": "12", "--weight_type": "random", "--device": "cpu",
         "--n_epochs": "2", "--batch_size": "2", "--n_pixels_by_us": "4", "--max_budget": "8",
         "--n_workers": "1"}
RUN = "camvid_d12_deeplab_mobilenetv2_margin_sampling_4_p0.05_0"


def quick_flags(*, without: Iterable[str] = ()) -> list[str]:
    return [part for name, value in QUICK.items() if name not in without for part in (name, value)]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny tensors are slower on many threads; the numbers of a run depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training and three test images of 48x64. Not to be changed; see `own_camvid`."""
    folder = tmp_path_factory.mktemp("data") / "CamVid"
    write_street_scenes(folder, n_train=5, n_test=3, height=48, width=64)
    return folder


@pytest.fixture
def own_camvid(tiny_camvid: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_camvid` to break."""
    return Path(shutil.copytree(tiny_camvid, tmp_path / "CamVid"))


@pytest.fixture
def run_train(tiny_camvid: Path, tmp_path: Path) -> Callable[..., Path]:
    """`run_train(*flags, out=FOLDER, data=FOLDER, without=NAMES)` runs train.py in this process
    with quick flags (later ones win) and returns the folder of checkpoints."""
    import train

    def run(*flags: str, out: Path = tmp_path / "checkpoints", data: Path = tiny_camvid,
            without: Iterable[str] = ()) -> Path:
        code = train.main([*quick_flags(without=without), "--dir_dataset", str(data),
                           "--dir_checkpoints", str(out), *flags])
        assert code == 0
        return out

    return run
