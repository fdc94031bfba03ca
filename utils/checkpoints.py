"""Checkpoints: plain tensors and containers, written atomically, read with `weights_only`. Those
for publication (utils/zoo.py) are safetensors files."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from utils.errors import InputError
from utils.files import write_atomically


def save_checkpoint(path: str | Path, content: dict) -> None:
    # Through memory, because torch.save reports a full disk as an internal error of its own.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def save_safetensors(path: str | Path, content: dict) -> None:
    """The tensors of the entry `network` as a safetensors file; the other entries, JSON, are its
    metadata `content`. `load_checkpoint` reads the same dictionary, with lists for tuples."""
    rest = {key: value for key, value in content.items() if key != "network"}
    tensors = {name: tensor.contiguous() for name, tensor in content["network"].items()}
    data = save(tensors, metadata={"format": "pt", "content": json.dumps(rest, allow_nan=False)})
    write_atomically(path, lambda file: file.write(data))


def _is_safetensors(path: str | Path) -> bool:
    """It begins with the length of a JSON object, 8 bytes, and that object."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and not start.startswith(b"PK")  # as torch's files do


def _read_safetensors(path: str | Path) -> dict:
    with safe_open(path, framework="pt") as file:
        content = json.loads((file.metadata() or {}).get("content", "{}"))
        names = file.keys()
        return content | {"network": {name: file.get_tensor(name) for name in names}}


def load_checkpoint(path: str | Path, *, needs: tuple[str, ...] = ()) -> dict:
    """Read a dictionary onto the CPU. Raises InputError if the file is missing, broken or lacks
    one of the keys it `needs`."""
    try:
        # Others save their flags beside the weights; a namespace of plain values does nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = (_read_safetensors(path) if _is_safetensors(path) else
                       torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a checkpoint ({error.strerror})") from error
    except Exception as error:  # whatever arbitrary bytes make of an unpickler
        raise InputError(f"{path}: cannot be read as a checkpoint: it is broken, of another kind, "
                         f"or holds more than tensors and plain values ({type(error).__name__})"
                         ) from error
    check_entries(content, needs, path=path)
    return content


def check_entries(content: object, needs: tuple[str, ...], *, path: str | Path) -> None:
    """Raises InputError if what was read from `path` lacks one of the keys it `needs`."""
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"{path}: is no checkpoint of this program (no {', '.join(missing)})")


def cpu_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the network's state on the CPU, contiguous whatever the memory format."""
    return {name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in network.state_dict().items()}
