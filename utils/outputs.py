"""What predict.py writes for an image, and the folder that it writes to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import nn

from datasets.spec import ClassSet
from utils.errors import InputError
from utils.files import read_json, write_atomically, write_json
from utils.runs import move_aside
from utils.segmenter import Prediction, Prepared

_RECORD = "predictions.json"
# By the ending of the file: writes an image's prediction to it.
Writers = dict[str, Callable[[BinaryIO, Prepared, Prediction], None]]
LABELS, VIDEO = ".png", ".mp4"


def palette_of(classes: ClassSet) -> np.ndarray:
    """`(256, 3)` uint8: the classes' colours, then black."""
    palette = np.zeros((256, 3), np.uint8)
    palette[:classes.n_classes] = [info.colour for info in classes.classes]
    return palette


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Image `(H, W, 3)`, half covered by the colours of `labels` `(H, W)`."""
    return (image // 2) + (palette // 2)[labels]


def writers_for(classes: ClassSet, *, with_overlay: bool, with_probabilities: bool,
                uncertainty: str | None) -> Writers:
    palette, names = palette_of(classes), np.array(classes.class_names)

    def labels(file: BinaryIO, image: Prepared, prediction: Prediction) -> None:
        picture = Image.fromarray(prediction.labels)
        picture.putpalette(palette.tobytes())
        picture.save(file, "PNG")

    def on_image(file: BinaryIO, image: Prepared, prediction: Prediction) -> None:
        Image.fromarray(overlay(image.image, prediction.labels, palette)).save(file, "PNG")

    def probabilities(file: BinaryIO, image: Prepared, prediction: Prediction) -> None:
        np.savez_compressed(file, probabilities=prediction.probabilities, classes=names)

    def grey(file: BinaryIO, image: Prepared, prediction: Prediction) -> None:
        Image.fromarray(prediction.uncertainty).save(file, "PNG")

    writers: Writers = {LABELS: labels}
    if with_overlay:
        writers[".overlay.png"] = on_image
    if with_probabilities:
        writers[".npz"] = probabilities
    if uncertainty is not None:
        writers[f".{uncertainty}.png"] = grey
    return writers


def write_outputs(folder: Path, stem: str, writers: Writers, image: Prepared,
                  prediction: Prediction) -> None:
    for ending, write in writers.items():
        write_atomically(folder / f"{stem}{ending}",
                         lambda file, write=write: write(file, image, prediction))


def digest_of(network: nn.Module) -> str:
    """sha256 of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def open_folder(folder: Path, *, how: dict, classes: ClassSet, overwrite: bool) -> str | None:
    """Make the folder, and record in it what the values of label maps mean and `how`, what they
    depend on. Raises InputError if it holds anything but predictions made like this; with
    `overwrite` such as were made otherwise are moved aside, and the line that says where to is
    returned."""
    record, path, notice = read_record(folder), folder / _RECORD, None
    how = json.loads(json.dumps(how))  # as it will be read
    if record is not None:
        old = record.get("how") if isinstance(record, dict) else None
        if not isinstance(old, dict):
            raise InputError(f"{path} is no longer what was written; give another --output")
        changed = [f"{key} was {old.get(key)!r}, is {how.get(key)!r}"
                   for key in sorted(old.keys() | how.keys()) if old.get(key) != how.get(key)]
        if changed and not overwrite:
            raise InputError(f"{folder} has predictions made otherwise ({'; '.join(changed)}); "
                             "give another --output, or --overwrite")
        if changed:  # all of them: what this command does not make again would pass for its own
            notice = f"predictions made otherwise were moved to {move_aside(folder.resolve())}"
    write_json(path, {"dataset": classes.name, "how": how, "classes": [
        {"value": value, "name": info.name, "colour": list(info.colour)}
        for value, info in enumerate(classes.classes)]})
    return notice


def read_record(folder: Path) -> object:
    """What the folder's record says; None if the folder is empty or not there. Raises InputError
    for a folder that is none of predictions."""
    path = folder / _RECORD
    try:
        if path.exists():
            return read_json(path)
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    if taken:
        raise InputError(f"--output {folder}: holds other things than predictions (no {_RECORD}); "
                         "give a new folder")
    return None
