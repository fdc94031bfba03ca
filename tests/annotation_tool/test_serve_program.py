"""`python -m annotation_tool.serve` as a program: flags, addresses, how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.annotation_tool.sites import ROOT, flags, logged, make_scenes, program


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return make_scenes(tmp_path)


def run_badly(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "annotation_tool.serve", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_bad_flags_are_one_line(scenes: Path) -> None:
    assert "0 to 65535" in run_badly(*flags(scenes, "--port", "99999"))
    assert "cannot listen" in run_badly(*flags(scenes, "--host", "no.such.host.invalid"))
    assert "letters and digits" in run_badly(*flags(scenes, "--token", "a b"))


def test_without_flask_it_says_what_to_install(scenes: Path) -> None:
    code = ("import sys; sys.modules['flask'] = None; from utils.errors import run_program; "
            "from annotation_tool.serve import main; run_program(lambda: main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", code, *flags(scenes)], cwd=ROOT, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 2 and "pip install flask waitress" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_all_logs_written_and_says_a_taken_port(scenes: Path, number: int) -> None:
    with program(*flags(scenes, "--port", "0")) as (process, url):
        port = url.rstrip("/").rpartition(":")[2]
        assert url == f"http://127.0.0.1:{port}/"
        assert f"port {port}" in run_badly(*flags(scenes, "--port", port))

        def post(path: str, **body: object) -> dict:
            request = urllib.request.Request(url + path, json.dumps(
                {"annotator": "ann", "window": "w", **body}).encode(),
                {"Content-Type": "application/json", "Origin": url.rstrip("/")})
            with urllib.request.urlopen(request, timeout=20) as reply:
                return json.load(reply)

        state = post("open")["state"]
        post("act", do="answer", label="sky", seconds=1, index=state["index"],
             actions=state["actions"])
        process.send_signal(number)
        assert process.wait(20) in (0, 130)
        assert "Traceback" not in process.stderr.read()
    assert list(logged(scenes, "ann").values()) == ["sky"]


def test_beyond_this_machine_there_is_a_token(scenes: Path) -> None:
    with program(*flags(scenes, "--port", "0", "--host", "0.0.0.0")) as (_, url):
        port, token = re.fullmatch(r"http://[^/]+:(\d+)/\?token=([0-9a-f]{32})", url).groups()
        here = f"http://127.0.0.1:{port}/"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(here, timeout=20)
        with urllib.request.urlopen(f"{here}?token={token}", timeout=20) as reply:
            assert reply.status == 200
