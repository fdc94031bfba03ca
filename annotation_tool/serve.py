"""The annotation session in a browser: `python -m annotation_tool.serve --dataset_name demo`.

Flags as for the window; every annotator gives a name on the page and has a folder. Each request
but those for pictures is a POST of a JSON object with `annotator` and `window` (made up by the
page; the newest window of an annotator has the session). The replies:

    /open   the session's state, and what stays the same during it
    /act    with `do` and the `index` and `actions` of the state that the page shows: the new state
            once the action is on the disk. 409: the session is elsewhere, nothing was done; 410,
            423: the window does not have the session; 422: not seen, so not labelled; 507: not
            saved
    /leave  closes the session (the window of launch_gui.py can have the folder then); farewell
"""

from __future__ import annotations

import argparse
import hmac
import io
import ipaddress
import re
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from annotation_tool import options
from annotation_tool.desks import Desks, Refusal, describe
from annotation_tool.keys import AT_END, HELP
from annotation_tool.session import Session
from datasets.classes import VOID_NAME
from datasets.images import read_image
from utils.errors import InputError, run_program

try:
    import flask
    import waitress
    from werkzeug.exceptions import HTTPException
except ImportError:
    flask = None

_PAGE = Path(__file__).with_name("page.html")  # with the style and the scripts beside it
_IDLE_SECONDS = 15 * 60  # without a request: the session is closed, the page opens it again
_LONGEST_SECONDS = 1e6  # that a page may claim for one answer
_MAX_BODY = 1 << 16
_MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "BMP": "image/bmp"}


# --- what is sent -------------------------------------------------------------------------------


def picture(path: Path) -> tuple[bytes, str]:
    """An image for the browser, with the pixels that training sees, and its MIME type: the file's
    own bytes if the browser shows just these, else a PNG. Raises InputError if it is not readable.
    """
    pixels = read_image(path)
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        plain = (image.format in _MIME_TYPES and image.mode in ("RGB", "L", "P")
                 and "transparency" not in image.info and getattr(image, "n_frames", 1) == 1
                 and image.getexif().get(0x0112, 1) == 1)  # browsers turn by orientation
        if plain:
            return content, _MIME_TYPES[image.format]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue(), "image/png"


def _whole_page() -> str:
    """One document with nothing to fetch; NONCE stands for the Content-Security-Policy's."""
    style, *scripts = (_PAGE.with_name(name).read_text(encoding="utf-8")
                       for name in ("page.css", "paint.js", "page.js"))
    page = _PAGE.read_text(encoding="utf-8")
    return page.replace("/*STYLE*/", style).replace("/*SCRIPT*/", "\n".join(scripts))


def _text(body: dict, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or len(value) > 1000:
        raise Refusal(400, f"{name}: expected text")
    return value


def _integer(body: dict, name: str) -> int:
    value = body.get(name)
    if type(value) is not int:
        raise Refusal(400, f"{name}: expected an integer")
    return value


def _seconds(body: dict) -> float:
    value = body.get("seconds")
    if type(value) not in (int, float) or not 0 <= value <= _LONGEST_SECONDS:  # NaN neither
        raise Refusal(400, "seconds: expected a number, 0 or more")
    return float(value)


# --- the site -----------------------------------------------------------------------------------


class Site:
    """look: of the page: ui_scale, marker_size, edge_size, show_others.
    practice: say after each answer whether it was right.
    token: has to be in the address of every request, if there is one.
    hosts: names that this server may be called by (so that no other website's name can lead here);
        None: any."""

    def __init__(self, task: options.Task, *, look: dict, practice: bool, token: str | None,
                 hosts: frozenset[str] | None) -> None:
        self.task, self.desks = task, Desks(task)
        self._look, self._practice, self._token, self._hosts = look, practice, token, hosts
        self._page = _whole_page()
        self._run = secrets.token_hex(8)  # tells a page that the program was started again
        self._truth_lock = threading.Lock()
        self._unreadable: set[int] = set()
        self._actions: dict[str, Callable[[Session, dict], str]] = {
            "answer": self._answer,
            "skip": self._skip,
            "undo": lambda session, _: "undo" if session.undo() else "! nothing to undo",
            "redo": lambda session, _: "redo" if session.redo() else "! nothing to redo",
            "look": lambda session, body: session.look(_integer(body, "step")) or "",
            "look_image": lambda session, body: session.look_image(_integer(body, "step")) or "",
            "go_to": self._go_to,
        }

    def app(self) -> flask.Flask:
        app = flask.Flask(__name__, static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY
        app.before_request(self._check)
        app.after_request(_protect)
        app.add_url_rule("/", view_func=self.page)
        app.add_url_rule("/picture/<int:index>", view_func=self.picture)
        for view in (self.open, self.act, self.leave):
            app.add_url_rule(f"/{view.__name__}", view_func=view, methods=["POST"])
        app.register_error_handler(Refusal, lambda error: (error.content, error.status))
        app.register_error_handler(HTTPException, lambda error: (
            {"error": error.description}, error.code))
        return app

    def _check(self) -> None:
        """Who may ask: a page of this server, opened with the token."""
        request = flask.request
        name = re.sub(r":\d*$", "", request.host)
        if self._hosts is not None and name not in self._hosts:
            raise Refusal(403, "this server is not known by that name; use 127.0.0.1")
        given = request.args.get("token", "")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refusal(403, "the token is missing or wrong; use the address that was printed")
        if request.method == "POST":
            site = request.headers.get("Sec-Fetch-Site")
            origin = request.headers.get("Origin", "").partition("://")[2]
            if site != "same-origin" if site else origin != request.host or not origin:
                raise Refusal(403, "not from another website")
            if not request.is_json:
                raise Refusal(415, "expected JSON")

    def _body(self) -> tuple[dict, str, str]:
        body = flask.request.get_json()
        if not isinstance(body, dict):
            raise Refusal(400, "expected a JSON object")
        return body, _text(body, "annotator"), _text(body, "window")

    # --- routes ---

    def page(self) -> flask.Response:
        nonce = secrets.token_urlsafe(16)
        response = flask.Response(self._page.replace("NONCE", nonce), mimetype="text/html")
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'")
        return response

    def picture(self, index: int) -> flask.Response:
        if index >= len(self.task.images):
            raise Refusal(404, "no such image")
        try:
            content, mime_type = picture(self.task.images[index].path)
        except (InputError, OSError) as error:
            self._unreadable.add(index)
            raise Refusal(422, str(error)) from error
        self._unreadable.discard(index)
        return flask.Response(content, mimetype=mime_type)

    def open(self) -> dict:
        _, annotator, window = self._body()
        with self.desks.opened(annotator, window) as session:
            state = describe(session)
        classes = [{"name": info.name, "key": info.key.lower(), "colour": info.colour}
                   for info in self.task.classes.classes]
        return {"state": state, "classes": classes, "void": VOID_NAME, "help": HELP,
                "dataset": self.task.classes.name, "n_images": len(self.task.images),
                "run": self._run, **self._look}

    def act(self) -> dict:
        body, annotator, window = self._body()
        do = self._actions.get(_text(body, "do"))
        if do is None:
            raise Refusal(400, "do: expected one of " + ", ".join(self._actions))
        with self.desks.used(annotator, window) as desk:
            session = desk.session
            shown = _integer(body, "index"), _integer(body, "actions")
            if shown != (session.cursor, len(session.store.actions)):
                raise Refusal(409, "the session had moved on; this is its pixel",
                              state=describe(session))
            try:
                message = do(session, body)
            except InputError as error:
                raise Refusal(507, str(error)) from error
            return {"state": describe(session), "message": message}

    def leave(self) -> dict:
        _, annotator, window = self._body()
        with self.desks.used(annotator, window) as desk:
            session, problem = desk.session, ""
            try:
                desk.close()
            except InputError as error:
                problem = f"\n{error}"
        with self._truth_lock:
            return {"farewell": options.farewell(session, truth=self.task.truth) + problem}

    # --- actions: each returns what is said, with "! " before what could not be done ---

    def _answer(self, session: Session, body: dict) -> str:
        label, seconds = _text(body, "label"), _seconds(body)
        if label != VOID_NAME and label not in self.task.classes.class_names:
            raise Refusal(400, "label: no class of this dataset")
        if session.at_end:
            return AT_END
        if session.pixel.image in self._unreadable:
            raise Refusal(422, "this image cannot be read: Space skips, PgDn goes on")
        asked = session.asked
        session.answer(label, seconds=seconds)
        if not self._practice:
            return ""
        with self._truth_lock:
            return self.task.truth.verdict(asked, label)

    def _skip(self, session: Session, body: dict) -> str:
        session.skip(seconds=_seconds(body))
        return "skipped; it comes back at the end"

    def _go_to(self, session: Session, body: dict) -> str:
        text = _text(body, "text")
        found = session.go_to(text)
        return "" if found else f"! no image, or more than one, is {text!r} or has that number"


def _protect(response: flask.Response) -> flask.Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


# --- the program --------------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(app: flask.Flask, *, host: str, port: int) -> tuple[object, int]:
    """The server, and the port that it got. Raises InputError."""
    try:
        server = waitress.create_server(app, host=host, port=port, threads=8, ident=None,
                                        max_request_body_size=_MAX_BODY)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}, port {port} ({error}); choose another --host "
                         "or --port (0: any free one)") from error
    listening = getattr(server, "effective_listen", None)  # where a name has several addresses
    return server, listening[0][1] if listening else server.effective_port


def _url(host: str, port: int, *, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return (f"http://{f'[{name}]' if ':' in name else name}:{port}/"
            + (f"?token={token}" if token else ""))


def _close_idle(desks: Desks, stopped: threading.Event) -> None:
    while not stopped.wait(_IDLE_SECONDS / 10):
        desks.close(idle_seconds=_IDLE_SECONDS)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser("Label the asked pixels in a browser, one key each; several annotators "
                            "at once.")
    group = parser.add_argument_group("where it listens")
    group.add_argument("--host", default="127.0.0.1", help="an address of this machine; others "
                       "than 127.0.0.1 can be reached from outside")
    group.add_argument("--port", type=int, default=8765, help="0: any free one")
    group.add_argument("--token", help="in the address of the page, needed to open it (default: "
                       "none on 127.0.0.1, elsewhere a random one)")
    args = parser.parse_args(argv)
    if not 0 <= args.port <= 65535:
        raise InputError(f"--port {args.port}: expected 0 to 65535")
    if args.token is not None and not (args.token.isascii() and args.token.isalnum()):
        raise InputError("--token: expected letters and digits")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if flask is None:
        raise InputError("the browser version needs Flask and waitress: pip install flask waitress")
    from annotation_tool.launch_gui import dataset_to_paths

    task = options.prepare(args, dataset_to_paths)
    local = _is_loopback(args.host)
    token = args.token or (None if local else secrets.token_hex(16))
    look = {"ui_scale": args.ui_scale, "marker_size": args.marker_size,
            "edge_size": args.edge_size, "show_others": args.display_all_queries}
    hosts = frozenset({"localhost", "127.0.0.1", "[::1]", args.host}) if local else None
    site = Site(task, look=look, practice=args.practice, token=token, hosts=hosts)
    server, port = _listen(site.app(), host=args.host, port=args.port)
    stopped = threading.Event()
    threading.Thread(target=_close_idle, args=(site.desks, stopped), daemon=True).start()
    signal.signal(signal.SIGTERM, _interrupt)
    print(f"annotate at {_url(args.host, port, token=token)} (Ctrl-C ends)", flush=True)
    try:
        server.run()  # until it is interrupted
    finally:
        stopped.set()
        site.desks.close()
    return 0


if __name__ == "__main__":
    run_program(main)
