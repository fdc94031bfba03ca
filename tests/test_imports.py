"""Which part may know which (the layout's rules)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Folder -> top-level modules it never imports.
NEVER = {
    "datasets": {"args", "train", "query", "networks"},
    "networks": {"args", "train", "query", "datasets", "argparse"},
    "utils": {"args", "train", "query"},
    "annotation_tool": {"args", "train", "query", "networks", "torch"},
}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("folder", NEVER)
def test_import_rules(folder: str) -> None:
    broken = {path.name: found for path in (REPOSITORY / folder).rglob("*.py")
              if (found := imported(path) & NEVER[folder])}
    assert not broken


def test_specs_points_and_queries_need_no_torch() -> None:
    program = ("import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
               "import datasets, datasets.images, datasets.points, datasets.queries\n"
               "import datasets.split, datasets.synthetic, utils.errors, utils.files")
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_parsing_has_no_side_effects(tmp_path: Path) -> None:
    program = ("import random, numpy, torch, os, sys; sys.path.insert(0, {0!r})\n"
               "state = random.getstate(), torch.get_rng_state().tolist()\n"
               "import args\n"
               "args.parse_arguments(['--dataset_name', 'cv'])\n"
               "assert state == (random.getstate(), torch.get_rng_state().tolist())\n"
               "assert not os.listdir('.') and not torch.cuda.is_initialized()")
    done = subprocess.run([sys.executable, "-c", program.format(str(REPOSITORY))], cwd=tmp_path,
                          check=True, capture_output=True, text=True)
    assert done.stdout == done.stderr == ""
