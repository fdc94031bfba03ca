"""Fixtures that several files of these tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation_tool import serve
from tests.annotation_tool.sites import make_scenes, make_site
from tests.annotation_tool.via_projects import write_images, write_project


@pytest.fixture
def dir_imgs(tmp_path: Path) -> Path:
    """The images of VIA projects."""
    return write_images(tmp_path / "images")


@pytest.fixture
def project(tmp_path: Path, dir_imgs: Path) -> Path:
    """A VIA project of ours."""
    return write_project(tmp_path / "via project.json", dir_imgs)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return make_scenes(tmp_path)


@pytest.fixture
def site(scenes: Path) -> Iterator[serve.Site]:
    """The browser version of these scenes."""
    site = make_site(scenes)
    yield site
    site.desks.close()
