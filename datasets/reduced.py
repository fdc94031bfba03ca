"""A smaller copy of a dataset whose files are large, written once beside it.

`<dir_dataset>_d<factor>` has the same layout. Images are resized by Pillow's bilinear filter with
antialiasing, label maps by the pixel under each centre (datasets/images.py), their values
unchanged. Every file is written beside its place and renamed; `reduced.json` says at the end which
files there are and how many bytes they have. A killed copy goes on where it stopped, and a file
that is missing or torn is written again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from datasets.images import list_samples, read_image, read_raw_label, resize_image, resize_label
from datasets.spec import DatasetSpec, Grid
from utils.errors import InputError
from utils.files import read_json, write_atomically, write_json
from utils.progress import track

_RECORD = "reduced.json"
_PNG_END = b"IEND\xaeB`\x82"


def reduced_folder(dir_dataset: str | Path, factor: int) -> Path:
    """Where the copy is."""
    root = Path(dir_dataset).resolve()
    return root.with_name(f"{root.name}_d{factor}")


def reduced_copy(spec: DatasetSpec, dir_dataset: str | Path, *, factor: int,
                 splits: Mapping[str, bool], n_workers: int) -> Path:
    """The folder of the copy, complete for these splits (name -> whether with label maps); what is
    missing is written, in `n_workers` threads. If the copy is complete the dataset itself is not
    looked at.

    Raises InputError as `list_samples`, `read_image` and `write_atomically` do, and for a folder
    in the copy's place that is none."""
    root, target = Path(dir_dataset), reduced_folder(dir_dataset, factor)
    record = _record(target, spec=spec, factor=factor)
    for split, with_labels in splits.items():
        parts = [split, f"{split} labels"] if with_labels else [split]
        if all(_is_complete(target, record["parts"].get(part)) for part in parts):
            continue
        samples = list_samples(root, spec.splits[split], with_labels=with_labels)
        write_json(target / _RECORD, record)  # from now on the folder is known as ours
        sources = [[sample.image for sample in samples], [sample.label for sample in samples]]
        for part, paths in zip(parts, sources, strict=False):
            names = [path.relative_to(root).as_posix() for path in paths]
            known = record["parts"].get(part, {})
            jobs = [(path, target / name, part != split, known.get(name), spec.grid.divided(factor))
                    for path, name in zip(paths, names, strict=True)]
            sizes = _reduce_all(jobs, n_workers=n_workers,
                                description=f"reducing {part} by {factor}")
            record["parts"][part] = dict(zip(names, sizes, strict=True))
            write_json(target / _RECORD, record)
    return target


def _record(target: Path, *, spec: DatasetSpec, factor: int) -> dict:
    """What `reduced.json` says: `parts` has, for the images of a split and for its label maps, the
    bytes of every file, once all are there."""
    path, ours = target / _RECORD, {"dataset": spec.name, "factor": factor}
    try:
        if not path.exists():
            if target.exists() and any(target.iterdir()):
                raise InputError(f"{target} is where the reduced copy belongs, but was not written "
                                 f"by this program (no {_RECORD}); move it away")
            return ours | {"parts": {}}
    except OSError as error:
        raise InputError(f"cannot read the folder {target}: {error.strerror}") from error
    content = read_json(path)
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or content != ours | {"parts": parts} \
            or not all(isinstance(files, dict) for files in parts.values()):
        raise InputError(f"{path} is no longer what was written; delete {target} to write it again")
    return content


def _is_complete(target: Path, files: Mapping[str, int] | None) -> bool:
    return files is not None and all(_size(target / name) == n for name, n in files.items())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _reduce_all(jobs: Sequence[tuple], *, n_workers: int, description: str) -> list[int]:
    # Threads are enough: Pillow works outside the interpreter's lock. They do not outlive a kill.
    with ThreadPoolExecutor(max(n_workers, 1)) as pool:
        try:
            return list(track(pool.map(_reduce, jobs), len(jobs), description=description,
                              unit="file"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _reduce(job: tuple[Path, Path, bool, int | None, Grid]) -> int:
    """Write a file of the copy, unless it is there; its number of bytes (None: not known yet)."""
    source, place, is_label, n_bytes, grid = job
    if not _is_whole(place, n_bytes):
        read, resize = (read_raw_label, resize_label) if is_label else (read_image, resize_image)
        content = read(source)
        reduced = Image.fromarray(resize(content, grid.of(content.shape[:2])))
        write_atomically(place, lambda file: reduced.save(file, format="PNG"))
    return place.stat().st_size


def _is_whole(place: Path, n_bytes: int | None) -> bool:
    size = _size(place)
    if size is None or n_bytes is not None:
        return size is not None and size == n_bytes
    try:
        read_image(place)  # it may lack the end and nothing else
        return place.read_bytes().endswith(_PNG_END)
    except (InputError, OSError):
        return False
