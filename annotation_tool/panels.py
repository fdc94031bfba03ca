"""The parts of the window: the image with its marker, the side panel, the status bar."""

from __future__ import annotations

import tkinter as tk
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from tkinter import font as tkfont

from PIL import Image, ImageTk

from annotation_tool.keys import HELP, class_of_key, display_name
from annotation_tool.pictures import Picture, crop
from annotation_tool.session import Session
from datasets.classes import VOID_NAME
from datasets.spec import ClassSet
from utils.geometry import file_pixel

BACKGROUND, PANEL, TEXT, DIM = "#202124", "#2b2d31", "#f1f3f4", "#b4b8bf"
WARNING, ACCENT = "#ffd54f", "#8ab4f8"
_INSET_PIXELS, _INSET_ZOOM = 22, 10
_CONTEXT_ASPECT = 0.65  # height / width of the context crop
_ZOOMS = (4, 5, 7, 10, 14, 20, 28)


class ImagePanel:
    """The whole image, fitted, with a hollow black-and-white ring around the asked pixel. `resized`
    is called when the canvas has another size."""

    def __init__(self, parent: tk.Misc, *, scale: float, marker_size: int, edge_size: int,
                 resized: Callable[[], None]) -> None:
        self.canvas = tk.Canvas(parent, background=BACKGROUND, highlightthickness=0)
        self._radius, self._edge = marker_size * scale / 2, max(1, round(edge_size * scale))
        self._font = tkfont.Font(family="Helvetica", size=-round(13 * scale), weight="bold")
        self._shown: Picture | None = None
        self._photo: ImageTk.PhotoImage | None = None
        self._origin = (0, 0)
        self._resized, self._after = resized, None
        self._image = self.canvas.create_image(0, 0, anchor="nw")
        self._text = self.canvas.create_text(20, 20, anchor="nw", fill=TEXT, font=self._font)
        self._rings = [self.canvas.create_oval(0, 0, 0, 0, outline=colour, width=self._edge)
                       for colour in ("black", "white")]
        self._hidden = False
        self.canvas.bind("<Configure>", self._configured)

    @property
    def box(self) -> tuple[int, int]:
        """Width and height that an image can have."""
        return max(self.canvas.winfo_width() - 8, 64), max(self.canvas.winfo_height() - 8, 64)

    def _configured(self, _: tk.Event) -> None:
        if self._after is not None:
            self.canvas.after_cancel(self._after)
        self._after = self.canvas.after(60 if self._shown else 1, self._resized)

    def show(self, picture: Picture, here: tuple[int, int], *, grid: tuple[int, int],
             others: Sequence[tuple[int, int, str]]) -> None:
        """`here` and `others`: (y, x) on the grid, the latter with a key to write beside them."""
        if picture is not self._shown:
            self._photo = ImageTk.PhotoImage(picture.fitted)
            self._origin = tuple((outer - inner) // 2 for outer, inner in zip(
                (self.canvas.winfo_width(), self.canvas.winfo_height()), picture.fitted.size,
                strict=True))
            self.canvas.itemconfigure(self._image, image=self._photo)
            self.canvas.coords(self._image, *self._origin)
            self.canvas.itemconfigure(self._text, text="")
            self._shown = picture
        self.canvas.delete("other")
        for y, x, key in others:
            self._draw_other(self._place(picture, (y, x), grid), key)
        x, y = self._place(picture, here, grid)
        r = self._radius
        for item in self.canvas.find_overlapping(x - r, y - r, x + r, y + r):
            if "other" in self.canvas.gettags(item):  # it would cover the asked pixel
                self.canvas.delete(item)
        for ring, radius in zip(self._rings, (self._radius + self._edge, self._radius),
                                strict=True):
            self.canvas.coords(ring, x - radius, y - radius, x + radius, y + radius)
            self.canvas.tag_raise(ring)
        self.hide_marker(self._hidden)

    def _place(self, picture: Picture, pixel: tuple[int, int],
               grid: tuple[int, int]) -> tuple[float, float]:
        """(x, y) on the canvas of a grid pixel's place in the file."""
        y, x = file_pixel(*pixel, grid=grid, size=picture.image.size[::-1])
        return (self._origin[0] + (x + 0.5) * picture.fitted.width / picture.image.width,
                self._origin[1] + (y + 0.5) * picture.fitted.height / picture.image.height)

    def _draw_other(self, place: tuple[float, float], key: str) -> None:
        x, y = place
        r = self._radius / 2
        for colour, grow in (("black", 1), ("white", 0)):
            self.canvas.create_rectangle(x - r - grow, y - r - grow, x + r + grow, y + r + grow,
                                         outline=colour, tags="other")
        for colour, shift in (("black", 1), ("white", 0)):
            self.canvas.create_text(x + r + 4 + shift, y + shift, text=key, fill=colour, anchor="w",
                                    font=self._font, tags="other")

    def hide_marker(self, hide: bool) -> None:
        """Hide all marks on the image, or show them again."""
        self._hidden = hide
        state = "hidden" if hide or self._shown is None else "normal"
        for item in (*self._rings, *self.canvas.find_withtag("other")):
            self.canvas.itemconfigure(item, state=state)

    def say(self, text: str) -> None:
        """Show a text in place of an image."""
        self._shown = None
        self.canvas.itemconfigure(self._image, image="")
        self.canvas.itemconfigure(self._text, text=text, width=self.box[0] - 40)
        self.canvas.delete("other")
        self.hide_marker(self._hidden)


class SidePanel:
    """From the top: the inset, a context crop, the suggestion, the classes; or the help."""

    def __init__(self, parent: tk.Misc, *, classes: ClassSet, scale: float) -> None:
        self._classes, self._size = classes, round(_INSET_PIXELS * _INSET_ZOOM * scale)
        self._zoom = _ZOOMS.index(_INSET_ZOOM)
        self._scale = scale
        self.frame = tk.Frame(parent, background=PANEL, padx=round(10 * scale),
                              pady=round(10 * scale))
        self._inset = _Crop(self.frame, (self._size, self._size))
        self._context = _Crop(self.frame, (self._size, round(self._size * _CONTEXT_ASPECT)))
        self._bold = tkfont.Font(family="Helvetica", size=-round(15 * scale), weight="bold")
        self._suggestion = tk.Label(self.frame, background=PANEL, foreground=ACCENT, anchor="w",
                                    font=self._bold)
        self._suggestion.pack(fill="x")
        self._list = _ClassList(self.frame, classes=classes, width=self._size, scale=scale,
                                key_of=self.key_of)
        self._help = tk.Label(self.frame, background=PANEL, foreground=TEXT, justify="left",
                              anchor="nw", wraplength=self._size + 10,
                              font=tkfont.Font(family="Helvetica", size=-round(13 * scale)),
                              text="\n".join(f"{keys}\n    {what}" for keys, what in HELP))

    def class_of_key(self, key: str) -> str | None:
        return class_of_key(key, self._classes)

    def key_of(self, label: str | None) -> str:
        """What stands for an answer: the class's key, Del for void, ? for none."""
        if label is None:
            return "?"
        return next((info.key.upper() for info in self._classes.classes if info.name == label),
                    "Del")

    def zoom(self, step: int) -> None:
        self._zoom = min(max(self._zoom + step, 0), len(_ZOOMS) - 1)

    def toggle_help(self) -> None:
        if self._help.winfo_ismapped():
            self._help.place_forget()
        else:
            self._help.place(x=0, y=0, relwidth=1, relheight=1)

    def show(self, session: Session, *, suggestion: tuple[str, float] | None) -> None:
        """The counts, and which class the pixel shown has."""
        self._list.show(session.used, session.label(session.cursor))
        text = ""
        if suggestion is not None:
            label, probability = suggestion
            text = f"model: {label} ({self.key_of(label)}), {probability:.0%}"
        self._suggestion.configure(text=text)

    def show_crops(self, image: Image.Image, here: tuple[int, int], *,
                   grid: tuple[int, int]) -> None:
        y, x = file_pixel(*here, grid=grid, size=image.size[::-1])
        cell = max(1, round(_ZOOMS[self._zoom] * self._scale))
        n = max(3, self._size // cell)
        self._inset.show(image, (y, x), top=y - n // 2, left=x - n // 2, shape=(n, n))
        columns = min(max(6 * n, 60), image.width)
        rows = min(round(columns * _CONTEXT_ASPECT), image.height)
        self._context.show(image, (y, x), shape=(rows, columns),
                           top=min(max(y - rows // 2, 0), image.height - rows),
                           left=min(max(x - columns // 2, 0), image.width - columns))

    def clear_crops(self) -> None:
        for panel in (self._inset, self._context):
            panel.clear()


class _ClassList:
    """Key, colour, name and count of each class and of void, in a font that lets all be seen."""

    def __init__(self, parent: tk.Misc, *, classes: ClassSet, width: int, scale: float,
                 key_of: Callable[[str], str]) -> None:
        self._canvas = tk.Canvas(parent, background=PANEL, highlightthickness=0, width=width)
        self._canvas.pack(fill="both", expand=True)
        self._width, self._scale, self._key_of = width, scale, key_of
        self._colours = {info.name: info.colour for info in classes.classes}
        self._font = tkfont.Font(family="Helvetica", size=-15)
        self._bold = tkfont.Font(family="Helvetica", size=-15, weight="bold")
        self._items: dict[str, tuple[int, int]] = {}
        self._used: Mapping[str, int] = Counter()
        self._chosen: str | None = None
        self._canvas.bind("<Configure>", lambda event: self._layout(event.height))

    def _layout(self, height: int) -> None:
        labels = [*self._colours, VOID_NAME]
        row = min(height // len(labels), round(23 * self._scale))
        size = min(max(row - 6, 8), round(15 * self._scale))
        for font in (self._font, self._bold):
            font.configure(size=-size)
        self._canvas.delete("all")
        self._items = {label: self._row(i * row + row // 2, size, label)
                       for i, label in enumerate(labels)}
        self.show(self._used, self._chosen)

    def _row(self, y: int, side: int, label: str) -> tuple[int, int]:
        """Items of one class: its name and its count."""
        canvas, left = self._canvas, self._bold.measure("Del ") + 6
        canvas.create_text(2, y, anchor="w", text=self._key_of(label), fill=TEXT, font=self._bold)
        if label in self._colours:
            canvas.create_rectangle(left, y - side // 2, left + side, y + side // 2, outline=DIM,
                                    fill="#{:02x}{:02x}{:02x}".format(*self._colours[label]))
        name = canvas.create_text(left + side + 8, y, anchor="w", fill=TEXT)
        return name, canvas.create_text(self._width - 2, y, anchor="e", fill=DIM, font=self._font)

    def show(self, used: Mapping[str, int], chosen: str | None) -> None:
        """How often each label was used, and which one the pixel shown has."""
        self._used, self._chosen = used, chosen
        for label, (name, count) in self._items.items():
            self._canvas.itemconfigure(count, text=str(used[label]))
            mine = label == chosen
            self._canvas.itemconfigure(name, font=self._bold if mine else self._font,
                                       text="> " * mine + display_name(label))


class _Crop:
    """A crop with a box around one of its pixels."""

    _SMALLEST_BOX = 8

    def __init__(self, parent: tk.Misc, size: tuple[int, int]) -> None:
        self._size = size
        self._canvas = tk.Canvas(parent, width=size[0], height=size[1], background=BACKGROUND,
                                 highlightthickness=0)
        self._canvas.pack(pady=(0, 8))
        self._photo = ImageTk.PhotoImage("RGB", size)
        self._image = self._canvas.create_image(0, 0, anchor="nw")
        self._boxes = [self._canvas.create_rectangle(0, 0, 0, 0, outline=colour)
                       for colour in ("black", "white")]

    def show(self, image: Image.Image, here: tuple[int, int], *, top: int, left: int,
             shape: tuple[int, int]) -> None:
        """`here`: (y, x) of the boxed pixel; `shape`: (rows, columns) from (top, left)."""
        self._photo.paste(crop(image, top=top, left=left, shape=shape, size=self._size))
        self._canvas.itemconfigure(self._image, image=self._photo)
        cells = self._size[1] / shape[0], self._size[0] / shape[1]  # of a pixel, (height, width)
        (y0, y1), (x0, x1) = (self._edges(c - first, cell) for c, first, cell in
                              zip(here, (top, left), cells, strict=True))
        for item, grow in zip(self._boxes, (2, 1), strict=True):
            self._canvas.coords(item, x0 - grow, y0 - grow, x1 + grow - 1, y1 + grow - 1)
            self._canvas.itemconfigure(item, state="normal")

    def _edges(self, index: int, cell: float) -> tuple[int, int]:
        """From where to where a pixel goes on the screen; at least so far that it can be seen."""
        middle, half = (index + 0.5) * cell, max(cell, self._SMALLEST_BOX) / 2
        return round(middle - half), round(middle + half)

    def clear(self) -> None:
        self._canvas.itemconfigure(self._image, image="")
        for item in self._boxes:
            self._canvas.itemconfigure(item, state="hidden")


class StatusBar:
    """Messages on the left; how far the work is on the right; the field of Ctrl+G over both."""

    _FLASH_MS = 900

    def __init__(self, parent: tk.Misc, *, scale: float,
                 go_to: Callable[[str | None, tk.Event], None]) -> None:
        font = tkfont.Font(family="Helvetica", size=-round(14 * scale))
        self.frame = tk.Frame(parent, background=PANEL, padx=round(10 * scale),
                              pady=round(6 * scale))
        self._message, self._progress = (
            tk.Label(self.frame, background=PANEL, foreground=TEXT, font=font, anchor=anchor)
            for anchor in ("w", "e"))
        self._progress.pack(side="right")
        self._message.pack(side="left", fill="x", expand=True)
        self._prompt = tk.Label(self.frame, background=PANEL, foreground=ACCENT, font=font,
                                text="Image, by number or name:")
        self._entry = tk.Entry(self.frame, font=font)
        # As high with the field as without: the image beside it is not to be fitted anew.
        self.frame.configure(height=self._entry.winfo_reqheight() + 2 * round(6 * scale))
        self.frame.pack_propagate(False)
        self._go_to, self._after = go_to, None
        for key in ("<Return>", "<KP_Enter>"):
            self._entry.bind(key, lambda event: self._close_entry(self._entry.get(), event))
        self._entry.bind("<Escape>", lambda event: self._close_entry(None, event))

    @property
    def entry_is_open(self) -> bool:
        return bool(self._entry.winfo_manager())

    def is_entry(self, widget: object) -> bool:
        return widget is self._entry

    def open_entry(self) -> None:
        self._message.pack_forget()
        self._prompt.pack(side="left")
        self._entry.pack(side="left")
        self._entry.delete(0, "end")
        self.frame.update_idletasks()  # Tk gives the focus to what is mapped only
        self._entry.focus_set()

    def _close_entry(self, text: str | None, event: tk.Event) -> str:
        self._prompt.pack_forget()
        self._entry.pack_forget()
        self._message.pack(side="left", fill="x", expand=True)
        self._go_to(text, event)
        return "break"

    def say(self, text: str) -> None:
        self._calm()
        self._message.configure(text=text)

    def flash(self, text: str, *, saved: bool = True) -> None:
        """A message in other colours for a moment; `saved`: whether all answers are on the disk."""
        self._calm()
        if not saved:
            self._progress.configure(text="NOT SAVED")
        self._message.configure(text=f"! {text}", background=WARNING, foreground="black")
        self._after = self.frame.after(self._FLASH_MS, self._calm)

    def _calm(self) -> None:
        if self._after is not None:
            self.frame.after_cancel(self._after)
            self._after = None
        self._message.configure(background=PANEL, foreground=TEXT)

    def show(self, session: Session) -> None:
        image, n_images, pixel, n_pixels = session.position
        rate, left = session.labels_per_minute, session.seconds_left
        parts = [f"image {image}/{n_images}", f"pixel {pixel}/{n_pixels}",
                 f"total {session.n_answered}/{len(session.pixels)}"]
        if session.n_skipped:
            parts.append(f"skipped {session.n_skipped}")
        if rate is not None:
            parts.append(f"{rate:.0f} labels/min")
        if left is not None and not session.finished:
            parts.append(f"{_duration(left)} left")
        self._progress.configure(text="   ".join([*parts, "saved"]))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
