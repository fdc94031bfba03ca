"""Key events of Tk as presses: what was pressed, with which modifier, and no auto-repeat."""

from __future__ import annotations

import sys
import tkinter as tk
from dataclasses import dataclass

# Bits of `event.state`. NumLock and CapsLock are none of them.
_CONTROL = 0x4
_ALT_OR_META = {"darwin": 0x8 | 0x10, "win32": 0x20000}.get(sys.platform, 0x8 | 0x40)
_SHIFTS = ("Shift_L", "Shift_R")
_MODIFIERS = (*_SHIFTS, "Control_L", "Control_R", "Alt_L", "Alt_R", "Meta_L", "Meta_R", "Super_L",
              "Super_R", "Caps_Lock", "Num_Lock", "ISO_Level3_Shift", "Mode_switch", "Multi_key")
# X11 repeats a held key as a release and a press of the same moment (milliseconds).
_SAME_MOMENT = 1


@dataclass(frozen=True)
class Press:
    """`name` is Tk's keysym, without the keypad's KP_ and in lower case if it is one letter."""

    name: str
    control: bool
    other: bool  # Alt or Meta


class Keyboard:
    """Turns the events of one window into presses."""

    def __init__(self) -> None:
        self._held: dict[int, int | None] = {}  # keycode -> time of its release, None while down

    def press(self, event: tk.Event) -> Press | None:
        """The press of a KeyPress event; None for a repeat of a held key and for a modifier."""
        code = event.keycode
        down = code in self._held
        repeated = down and (self._held[code] is None
                             or event.time - self._held[code] <= _SAME_MOMENT)
        self._held[code] = None
        if repeated or event.keysym in _MODIFIERS:
            return None
        name = event.keysym.removeprefix("KP_")
        state = int(event.state)
        return Press(name.lower() if len(name) == 1 else name, bool(state & _CONTROL),
                     bool(state & _ALT_OR_META))

    def release(self, event: tk.Event) -> None:
        if event.keycode in self._held:
            self._held[event.keycode] = event.time

    def forget(self) -> None:
        """The window lost the focus: releases went elsewhere."""
        self._held.clear()


def is_shift(event: tk.Event) -> bool:
    return event.keysym in _SHIFTS
