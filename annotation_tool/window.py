"""The annotation window. It shows a Session and turns keys into its methods."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable

from annotation_tool.keyboard import Keyboard, Press, is_shift
from annotation_tool.keys import AT_END, display_name
from annotation_tool.panels import BACKGROUND, ImagePanel, SidePanel, StatusBar
from annotation_tool.pictures import Picture, Pictures
from annotation_tool.session import Session, Stopwatch
from annotation_tool.truth import GroundTruth
from datasets.classes import VOID_NAME
from utils.errors import InputError

_POLL_MS = 3  # while an image is being decoded
_TICK_MS = 250


def run(session: Session, *, truth: GroundTruth | None, title: str, ui_scale: float,
        marker_size: int, edge_size: int, show_others: bool, practice: bool) -> None:
    """Show the window until it is left. Raises InputError where no window can be opened."""
    try:
        root = tk.Tk(className="PixelPick")
    except tk.TclError as error:
        raise InputError(f"no window can be opened here ({error}); on a machine without a screen "
                         "use the browser: python -m annotation_tool.serve with the same flags"
                         ) from error
    root.title(title)
    window = Window(root, session, truth=truth if practice else None, ui_scale=ui_scale,
                    marker_size=marker_size, edge_size=edge_size, show_others=show_others)
    try:
        root.mainloop()
    finally:
        window.pictures.close()
        root.destroy()
    if window.failure is not None:
        raise window.failure


class Window:
    """`truth` is given to practise: each answer is compared at once. `failure` is the exception
    that closed the window, if one did; `waiting` while the image is being decoded."""

    def __init__(self, root: tk.Tk, session: Session, *, truth: GroundTruth | None,
                 ui_scale: float, marker_size: int, edge_size: int, show_others: bool) -> None:
        self.root, self.session, self._truth = root, session, truth
        self.failure: BaseException | None = None
        self.pictures = Pictures(session.images)
        self._keyboard, self._stopwatch = Keyboard(), Stopwatch()
        self._show_others, self._show_suggestion = show_others, False
        self._painted: tuple[int, Picture | None] | None = None  # image and how, None: unreadable
        self._poll_id: str | None = None
        self.waiting = True  # until the first pixel is painted
        self._timed: tuple[int, int] | None = None  # the `_showing` whose time runs
        root.configure(background=BACKGROUND)
        root.geometry(f"{round(1180 * ui_scale)}x{round(760 * ui_scale)}")
        root.minsize(640, 480)
        self.bar = StatusBar(root, scale=ui_scale, go_to=self._go_to)
        self.side = SidePanel(root, classes=session.classes, scale=ui_scale)
        self.view = ImagePanel(root, scale=ui_scale, marker_size=marker_size, edge_size=edge_size,
                               resized=self.show)
        self.bar.frame.pack(side="bottom", fill="x")
        self.side.frame.pack(side="right", fill="y")
        self.view.canvas.pack(side="left", fill="both", expand=True)
        self._controls = self._build_controls()
        root.report_callback_exception = self._fail
        root.protocol("WM_DELETE_WINDOW", self.leave)
        root.bind("<KeyPress>", self._pressed)
        root.bind("<KeyRelease>", self._released)
        root.bind("<FocusOut>", self._focus_out)
        root.bind("<FocusIn>", self._focus_in)
        root.focus_force()
        root.update_idletasks()
        self._tick()

    def _tick(self) -> None:
        """Python looks at Ctrl+C in the terminal only between callbacks."""
        self.root.after(_TICK_MS, self._tick)

    # --- keys -----------------------------------------------------------------------------------

    def _build_controls(self) -> dict[tuple[str, bool], Callable[[], None]]:
        """(keysym, with Ctrl) -> what it does."""
        session = self.session
        plain = {
            "BackSpace": lambda: self._take(session.undo, "undo"),
            "space": self._skip,
            "Delete": lambda: self._answer(VOID_NAME),
            "Left": lambda: self._look(session.look, -1),
            "Right": lambda: self._look(session.look, 1),
            "Prior": lambda: self._look(session.look_image, -1),
            "Next": lambda: self._look(session.look_image, 1),
            "plus": lambda: self._zoom(1), "equal": lambda: self._zoom(1),
            "Add": lambda: self._zoom(1),
            "minus": lambda: self._zoom(-1), "Subtract": lambda: self._zoom(-1),
            "F1": self.side.toggle_help,
            "F2": self._toggle_suggestion,
            "F3": self._toggle_others,
            "Return": self._accept, "Enter": self._accept,
            "Escape": self.leave,
        }
        control = {
            "z": plain["BackSpace"],
            "y": lambda: self._take(session.redo, "redo"),
            "g": self._open_go_to,
            "q": self.leave,
        }
        return {(name, False): do for name, do in plain.items()} | {
            (name, True): do for name, do in control.items()}

    def _pressed(self, event: tk.Event) -> None:
        if self.bar.is_entry(event.widget):
            return
        if is_shift(event):
            self.view.hide_marker(True)
        press = self._keyboard.press(event)
        if press is not None:
            self.press(press)

    def _released(self, event: tk.Event) -> None:
        self._keyboard.release(event)
        if is_shift(event):
            self.view.hide_marker(False)

    def press(self, press: Press) -> None:
        """Do what a key does; what cannot be saved is said and changes nothing."""
        do = None if press.other else self._controls.get((press.name, press.control))
        if do is None and not (press.control or press.other):
            label = self.side.class_of_key(press.name)
            do = label and (lambda: self._answer(label))
        if do is None:
            held = "Ctrl+" * press.control + "Alt+" * press.other
            self.bar.flash(f"{held}{press.name} does nothing here; F1 lists the keys")
            return
        try:
            do()
        except InputError as error:
            self.bar.flash(f"NOT SAVED: {error}", saved=False)

    # --- what keys do ---------------------------------------------------------------------------

    def _answer(self, label: str) -> None:
        if not self._seen():
            return
        session = self.session
        asked = session.asked
        session.answer(label, seconds=self._stopwatch.seconds)
        self.show()
        self._say(self._truth.verdict(asked, label) if self._truth else "")

    def _seen(self) -> bool:
        """Whether the person can see what they would label."""
        if self.session.at_end:
            self.bar.flash(AT_END.removeprefix("! "))
        elif self.waiting:
            self.bar.flash("still reading the image")
        elif self._painted[1] is None:
            self.bar.flash("this image cannot be read: Space skips, PgDn goes on")
        else:
            return True
        return False

    def _skip(self) -> None:
        if self.waiting:
            self.bar.flash("still reading the image")
            return
        self.session.skip(seconds=self._stopwatch.seconds)
        self.show()
        self._say("skipped; it comes back at the end")

    def _take(self, take: Callable[[], bool], what: str) -> None:
        if not take():
            self.bar.flash(f"nothing to {what}")
            return
        self.show()
        self._say(what)

    def _look(self, look: Callable[[int], None], step: int) -> None:
        look(step)
        self.show()
        self._say("")

    def _zoom(self, step: int) -> None:
        self.side.zoom(step)
        self.show()

    def _toggle_suggestion(self) -> None:
        if self.session.image.predictions is None:
            self.bar.flash("no suggestions: no network has seen these pixels")
            return
        self._show_suggestion = not self._show_suggestion
        self.show()

    def _toggle_others(self) -> None:
        self._show_others = not self._show_others
        self.show()

    def _accept(self) -> None:
        suggestion = self.session.suggestion
        if not self._show_suggestion or suggestion is None:
            self.bar.flash("no suggestion is shown (F2 shows it)")
            return
        self._answer(suggestion[0])

    def _open_go_to(self) -> None:
        self._stopwatch.pause()
        self.bar.open_entry()

    def _go_to(self, text: str | None, event: tk.Event) -> None:
        """What was typed after Ctrl+G, None if it was called off; `event` ended it."""
        self._stopwatch.go_on()
        self._keyboard.forget()
        self._keyboard.press(event)  # as long as it is held, its repeats are no presses
        self.root.focus_set()
        if text is None:
            return
        if self.session.go_to(text):
            self.show()
            self._say("")
        else:
            self.bar.flash(f"no image, or more than one, is called {text!r} or has that number")

    def leave(self) -> None:
        self.root.quit()

    # --- painting -------------------------------------------------------------------------------

    def show(self) -> None:
        """Paint the session's pixel and start its time; if its image is not decoded yet, as soon
        as it is."""
        session = self.session
        box, index = self.view.box, session.pixel.image
        found = self.pictures.get(index, box=box)
        for other in (index + 1, index - 1):
            if 0 <= other < len(session.images):
                self.pictures.get(other, box=box)
        if self._poll_id is not None:
            self.root.after_cancel(self._poll_id)
            self._poll_id = None
        if not found.done():
            self._poll_id = self.root.after(_POLL_MS, self.show)
            # Another size of the image that is there already is no reason to wait.
            self.waiting = self._painted is None or self._painted[0] != index
            if self.waiting:
                self.view.say(f"reading {session.image.name} ...")
                return
        else:
            problem = found.exception()
            self._painted = index, None if problem else found.result()
            self.waiting = False
            if problem:
                self.view.say(str(problem))
                self.side.clear_crops()
        if self._painted[1] is not None:
            self._paint(self._painted[1])
        suggestion = session.suggestion if self._show_suggestion else None
        self.side.show(session, suggestion=suggestion)
        self.bar.show(session)
        self.root.update_idletasks()
        if self._timed != self._showing:  # else it is painted again: zoom, F2, F3, another size
            self._stopwatch.start()
            self._timed = self._showing

    @property
    def _showing(self) -> tuple[int, int]:
        """Changes with the pixel shown and with every action (an undo may show the same pixel)."""
        return self.session.cursor, len(self.session.store.actions)

    def _paint(self, picture: Picture) -> None:
        session = self.session
        others = []
        if self._show_others:
            others = [(session.pixels[i].y, session.pixels[i].x, self.side.key_of(session.label(i)))
                      for i in session.of_image(session.pixel.image) if i != session.cursor]
        here = (session.pixel.y, session.pixel.x)
        self.view.show(picture, here, grid=session.image.size, others=others)
        self.side.show_crops(picture.image, here, grid=session.image.size)

    def _say(self, message: str) -> None:
        session = self.session
        label = session.label(session.cursor)
        if session.finished:
            message = f"{message}  Everything is answered. Esc leaves.".strip()
        elif label is not None:
            message = f"{message}  Answered: {display_name(label)}".strip()
        elif session.is_skipped(session.cursor):
            message = f"{message}  Skipped before.".strip()
        self.bar.say(message)

    # --- the window's own events ----------------------------------------------------------------

    def _focus_out(self, _: tk.Event) -> None:
        self.root.after_idle(self._check_focus)

    def _check_focus(self) -> None:
        if self.root.focus_displayof() is None:  # not just a part of this window
            self._stopwatch.pause()
            self._keyboard.forget()
            self.view.hide_marker(False)

    def _focus_in(self, _: tk.Event) -> None:
        if not self.bar.entry_is_open:
            self._stopwatch.go_on()

    def _fail(self, kind: type[BaseException], error: BaseException, trace: object) -> None:
        """Tk swallows exceptions of callbacks: say it, close, and let the program end with it."""
        if isinstance(error, InputError):
            self.bar.flash(str(error))
            return
        self.failure = error
        self.root.quit()
