"""Random draws that depend on what they are for and on nothing else."""

from __future__ import annotations

import zlib

import numpy as np


def random_generator(*key: int | str) -> np.random.Generator:
    """A generator keyed by what the draw is for: seed, purpose, round or epoch, and image.

    Names enter by their CRC-32, so that a draw for an image depends on no other image; the length
    enters because numpy takes [1] and [1, 0] for the same seed."""
    parts = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.default_rng([len(key), *parts])


def seed_of(*key: int | str) -> int:
    """A seed in 0 .. 2**63 - 1 for libraries that take one number; the same key, the same seed."""
    return int(random_generator(*key).integers(2**63))
