"""Memory, waiting for the device, and how a table is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch


def peak_memory_mb(device: torch.device) -> float:
    """Of this process: what the allocator held on a GPU, the resident set on the CPU (Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # Not getrusage's ru_maxrss: a child process inherits its parent's.
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """As Markdown."""
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in row) + " |")
