"""What a VIA 3 project is made of: its images, its shapes, and the ids that we give them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from utils.errors import InputError
from utils.files import read_json, relative_name

FORMAT = "3.1.1"
POINT, IMAGE, BY_ADDRESS, SELECT = 1, 2, 3, 4  # numbers that VIA has for these
_INLINE = "4"
_SHAPES = {2: "rectangle", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon",
           8: "rectangle", 9: "circle"}
_ID = re.compile("image{0}of{0}_pixel{0}of{0}_y{0}x{0}_grid{0}x{0}_file{0}x{0}".format(
    "([0-9]{1,9})"))


class PixelId(NamedTuple):
    """Of a point of ours; `image` and `index` count from 1."""

    image: int
    n_images: int
    index: int
    n: int
    y: int
    x: int
    h: int
    w: int
    file_y: int
    file_x: int

    def __str__(self) -> str:
        return "image{}of{}_pixel{}of{}_y{}x{}_grid{}x{}_file{}x{}".format(*self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A shape of a project.

    own: what its id says if it is a point of ours; vid: the view that shows its image.
    xy: the number of the shape and its coordinates, as they stand in the file.
    values: of attributes by their id, "" where nothing is chosen.
    """

    id: str
    own: PixelId | None
    vid: str
    image: str
    xy: list
    values: dict[str, str]

    @property
    def pixel(self) -> tuple[int, int] | None:
        """(y, x) of the file's pixel that it lies in; None if it is no point."""
        try:
            shape, x, y = self.xy
            return (math.floor(y), math.floor(x)) if shape == POINT else None
        except (TypeError, ValueError, OverflowError):
            return None

    def __str__(self) -> str:
        if self.own:
            return f"{self.image} ({self.own.y}, {self.own.x})"
        pixel = self.pixel
        what = _SHAPES.get(self.xy[0]) if isinstance(self.xy[0], int) else None
        return f"{self.image} " + (f"({pixel[0]}, {pixel[1]})" if pixel else what or "other shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """`content` is the whole file, `names` the image of each view, `entries` all shapes."""

    path: Path
    content: dict
    names: dict[str, str]
    entries: list[Entry]


def load_project(path: Path) -> Project:
    """Raises InputError if it is no project of VIA 3, shows anything but images, or has one whose
    path could lead out of a folder."""
    content = read_json(path)
    if isinstance(content, dict) and "_via_img_metadata" in content:
        raise InputError(f"{path}: is a project of VIA 2; open it in VIA 3 and save it there")
    try:
        version = content["project"]["data_format_version"]
        if not str(version).startswith("3."):
            raise InputError(f"{path}: has VIA's data format {str(version)[:20]!r}, expected "
                             f"{FORMAT}")
        names = _image_names(path, content)
        entries = [_entry(id_, entry, names) for id_, entry in content["metadata"].items()]
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is no VIA 3 project ({type(error).__name__}: "
                         f"{str(error)[:200]})") from error
    # Without a shape, it is about the image as a whole.
    return Project(path=path, content=content, names=names,
                   entries=[entry for entry in entries if entry.xy or entry.own])


def _entry(id_: str, entry: dict, names: dict[str, str]) -> Entry:
    numbers, vid = _ID.fullmatch(id_), str(entry["vid"])
    xy, values = entry["xy"], entry.get("av", {})
    if not isinstance(xy, list):
        raise TypeError(f"the shape of {id_[:100]!r}")
    if any(not isinstance(value, str | int | None) for value in values.values()):
        raise TypeError(f"an attribute of {id_[:100]!r}")
    return Entry(id=id_, own=PixelId(*map(int, numbers.groups())) if numbers else None, vid=vid,
                 image=names[vid], xy=xy,
                 values={aid: "" if value is None else str(value)
                         for aid, value in values.items()})


def _image_names(path: Path, content: dict) -> dict[str, str]:
    """By view, the image it shows. Raises InputError for anything but images inside a folder."""
    names = {}
    for fid, file in content["file"].items():
        if str(file["type"]) != str(IMAGE):
            raise InputError(f"{path}: file {str(file['fname'])[:100]!r} is no image; only images "
                             "can be asked")
        # Files that the user picks in the browser have no address, inlined ones are theirs.
        source = file["fname"] if str(file["loc"]) == _INLINE else file["src"] or file["fname"]
        if not isinstance(source, str):
            raise TypeError(f"the source of file {fid[:20]!r}")
        names[fid] = relative_name(unquote(source), where=path)
    shown = {}
    for vid, view in content["view"].items():
        fids = view["fid_list"]
        if not isinstance(fids, list) or len(fids) != 1:
            raise InputError(f"{path}: view {vid[:20]!r} does not show exactly one file; make one "
                             "view of each image")
        shown[vid] = names[str(fids[0])]
    return shown
