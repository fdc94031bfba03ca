"""Classes from a YAML file: what is assigned, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets import DATASETS
from datasets.classes import check_keys, read_classes
from utils.errors import InputError


def read(tmp_path: Path, text: str):
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return read_classes(path, name="mine")


def test_given_keys_and_colours_are_kept_and_others_assigned(tmp_path: Path) -> None:
    found = read(tmp_path, """
classes:
  - name: sky
    key: S
    colour: [1, 2, 3]
  - sand
  - {name: crête ü, key: 7}
  - ass
""")
    assert found.name == "mine" and found.ignore_index == 255
    assert found.class_names == ("sky", "sand", "crête ü", "ass")
    assert [info.key.lower() for info in found.classes] == ["s", "a", "7", "b"]
    assert found.classes[0].colour == (1, 2, 3)
    assert len({info.colour for info in found.classes}) == 4
    assert all(0 <= c <= 255 for info in found.classes for c in info.colour)


def test_thirty_six_classes_have_keys_and_no_more(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(37)]
    text = "classes: [" + ", ".join(names[:36]) + "]\nignore: 200"
    found = read(tmp_path, text)
    assert len({info.key for info in found.classes}) == 36 and found.ignore_index == 200
    with pytest.raises(InputError, match="no key is left for class 'c36'"):
        read(tmp_path, "classes: [" + ", ".join(names) + "]")


@pytest.mark.parametrize(("text", "message"), [
    ("", "expected `classes:`"),
    ("- sky", "expected `classes:`"),
    ("classes: sky", "expected `classes:`"),
    ("classes: []", "0 classes"),
    ("classes: [sky\n", "cannot read"),
    ("classes: !!python/object/apply:os.system [ls]", "cannot read"),
    ("classes: [sky]\ncolour: x", "unknown entry 'colour'"),
    ("classes: [{name: sky, colr: 1}]", "class 1 has an unknown entry 'colr'"),
    ("classes: [{key: k}]", "class 1 has the name None"),
    ("classes: [yes]", "class 1 has the name True"),
    ('classes: ["a\\nb"]', "class 1 has the name"),
    ("classes: [void]", "'void' is the answer"),
    ("classes: [sky, sky]", "'sky' and 'sky' have the same name"),
    ("classes: [{name: a, key: k}, {name: b, key: K}]", "'a' and 'b' have the same key 'k'"),
    ("classes: [{name: a, key: '+'}]", r"'a' has the key '\+'; keys are single letters"),
    ("classes: [{name: a, key: F1}]", "'a' has the key 'F1'"),
    ("classes: [{name: a, key: ' '}]", "reserved"),
    ("classes: [{name: a, key: ü}]", "single letters a-z"),
    ("classes: [{name: a, key: [k]}]", "put it in quotes"),
    ("classes: [{name: a, colour: [1, 2]}]", "three integers"),
    ("classes: [{name: a, colour: [1, 2, 256]}]", "three integers"),
    ("classes: [{name: a, colour: red}]", "three integers"),
    ("classes: [a, b]\nignore: 1", "ignore 1 is the index of class 'b'"),
    ("classes: [a, b]\nignore: 256", "ignore 256 is no integer"),
])
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_the_datasets_own_classes_have_their_keys() -> None:
    for spec in DATASETS.values():
        check_keys(spec.classes, where=spec.name)
