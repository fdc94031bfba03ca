"""A trained network with all that is needed to use it, from one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from datasets.caches import Cache
from datasets.prepare import prepare
from datasets.spec import DatasetSpec, spec_from_dict
from datasets.split import LoadedSplit, load_split
from networks import build_network
from networks.original import is_original
from utils.checkpoints import check_entries, load_checkpoint
from utils.distributed import main_first, rank, world_size
from utils.downloads import local_file
from utils.errors import InputError
from utils.inference import Predictor


@dataclass(frozen=True, kw_only=True)
class Model:
    """`config` is what train.py put into the checkpoint: dataset (a spec's `to_dict`), downsample,
    n_images, network (its keyword arguments), mean, std, asking, seed, round."""

    network: nn.Module
    spec: DatasetSpec
    config: dict
    device: torch.device

    def predictor(self, *, batch_size: int) -> Predictor:
        return Predictor(device=self.device, batch_size=batch_size, mean=self.config["mean"],
                         std=self.config["std"], share=(rank(), world_size()))

    def load_train_split(self, dir_dataset: str | Path, *, n_workers: int,
                         with_labels: bool, cache: Cache) -> LoadedSplit:
        """The images that it was trained on; `--downsample` as it was then."""
        config, downsample = self.config, self.config["downsample"]
        with main_first():
            folder = prepare(self.spec, dir_dataset=dir_dataset, downsample=downsample,
                             n_workers=n_workers, splits={"train": with_labels})
        return load_split(self.spec, "train", dir_dataset=folder, with_labels=with_labels,
                          grid=self.spec.grid.divided(downsample), n_workers=n_workers,
                          n_images=config["n_images"], seed=config["seed"], cache=cache)


def load_model(path: str | Path, *, device: torch.device) -> Model:
    """path: a last.pt or best.pt, a packed file, or where to download one (utils/downloads.py).
    Raises InputError if the file cannot be had or is no checkpoint of this program."""
    content = load_checkpoint(local_file(path))
    if is_original(content):
        raise InputError(f"{path}: looks like a checkpoint of PixelPick's authors; make one of "
                         "this program of it with python -m utils.zoo convert, which needs the "
                         "data set's name")
    check_entries(content, ("network", "config"), path=path)
    try:
        config = content["config"]
        missing = {"downsample", "n_images", "mean", "std", "asking", "seed",
                   "round"} - config.keys()
        if missing:
            raise KeyError(*missing)
        spec = spec_from_dict(config["dataset"])
        network = build_network(**config["network"])
        network.load_state_dict(content["network"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: is no checkpoint of this program "
                         f"({type(error).__name__}: {error})") from error
    network = network.to(device=device, memory_format=torch.channels_last).eval()
    return Model(network=network, spec=spec, config=config, device=device)
