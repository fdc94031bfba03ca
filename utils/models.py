"""A trained network with all that is needed to use it, from one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from datasets import DATASETS, DatasetSpec
from datasets.split import LoadedSplit, load_split
from networks import build_network
from utils.checkpoints import load_checkpoint
from utils.errors import InputError
from utils.inference import Predictor


@dataclass(frozen=True, kw_only=True)
class Model:
    """`config` is what train.py put into the checkpoint: dataset, grid, network (its keyword
    arguments), mean, std, asking, seed, round."""

    network: nn.Module
    config: dict
    device: torch.device

    @property
    def spec(self) -> DatasetSpec:
        return DATASETS[self.config["dataset"]]

    def predictor(self, *, batch_size: int) -> Predictor:
        return Predictor(device=self.device, batch_size=batch_size, mean=self.config["mean"],
                         std=self.config["std"])

    def load_train_split(self, dir_dataset: str | Path, *, n_workers: int,
                         with_labels: bool) -> LoadedSplit:
        return load_split(self.spec, self.spec.train, dir_dataset=dir_dataset,
                          grid=tuple(self.config["grid"]), n_workers=n_workers,
                          with_labels=with_labels)


def load_model(path: str | Path, *, device: torch.device) -> Model:
    """Raises InputError if the file is no checkpoint of this program."""
    content = load_checkpoint(path, needs=("network", "config"))
    try:
        config = content["config"]
        missing = {"grid", "mean", "std", "asking", "seed", "round"} - config.keys()
        if missing:
            raise KeyError(*missing)
        if config["dataset"] not in DATASETS:
            raise InputError(f"{path}: unknown dataset {config['dataset']!r}; this program knows "
                             f"{', '.join(DATASETS)}")
        network = build_network(**config["network"])
        network.load_state_dict(content["network"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: is no checkpoint of this program "
                         f"({type(error).__name__}: {error})") from error
    network = network.to(device=device, memory_format=torch.channels_last).eval()
    return Model(network=network, config=config, device=device)
