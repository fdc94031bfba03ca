"""Which keys do what. Letters and digits belong to classes; controls are never letters."""

from __future__ import annotations

from datasets.classes import VOID_NAME
from datasets.spec import ClassSet

# What F1 shows: the keys that are no class, and what they do.
HELP = (
    ("class key", "label the pixel, save, next"),
    ("BackSpace, Ctrl+Z", "undo"),
    ("Ctrl+Y", "redo"),
    ("Space", "skip: comes back at the end"),
    ("Delete", "void: none of these"),
    ("Left, Right", "look at the previous, next pixel"),
    ("PgUp, PgDn", "look at the previous, next image"),
    ("Ctrl+G", "go to an image by number or name"),
    ("+, -", "zoom of the inset"),
    ("Shift (held)", "hide the marker"),
    ("F1", "this help"),
    ("F2", "show the model's suggestion"),
    ("Return", "accept the suggestion shown"),
    ("F3", "show the image's other pixels"),
    ("Esc, Ctrl+Q", "leave; everything is saved"),
)

# Said for a class key when nothing is left to answer: it would change the last answer unseen.
AT_END = "! everything is answered; BackSpace or Left goes back, Esc leaves"


def class_of_key(key: str, classes: ClassSet) -> str | None:
    """The class whose key this character is, upper and lower case alike."""
    return next((info.name for info in classes.classes if info.key.lower() == key.lower()), None)


def display_name(label: str) -> str:
    return "void (none of these)" if label == VOID_NAME else label
