"""benchmarks/run.py, convolutions.py: that all of it runs, and that what it counts is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import convolutions, roofline, run
from tests.conftest import quick_flags
from utils.errors import InputError


def test_steps_and_a_round_in_one_file(tiny_camvid: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "figures.json"
    assert run.main(["--quick", "--parts", "step", "round", "--device", "cpu", "--json", str(out),
                     "--note", "a test", "--", *quick_flags(), "--dir_dataset",
                     str(tiny_camvid)]) == 0
    content = json.loads(out.read_text())
    assert content["note"] == "a test" and content["machine"]["torch"] == torch.__version__
    assert str(tiny_camvid) not in out.read_text()
    plain, *ours = content["steps"]
    assert plain["way"] == "plain" and {row["way"] for row in ours} == {"ours"}
    assert plain["of_first"] == 1 and ours[0]["flops"] != plain["flops"]
    for row in content["steps"]:
        limit = max(row["arithmetic_s"], row["bytes_s"])
        assert row["percent_of_limit"] == pytest.approx(100 * limit / row["step_s"])
    assert content["round"]["images"] == [5, 3]
    assert min(content["round"][f"{name}_s"] for name in
               ("batches", "epoch", "validation", "query")) > 0
    printed = capsys.readouterr().out
    assert "| % of limit |" in printed and printed.count("| ours |") == len(ours)


def test_what_a_step_is_made_of(tmp_path: Path, capsys) -> None:
    out = tmp_path / "figures.json"
    assert run.main(["--quick", "--parts", "profile", "--device", "cpu", "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["profile"]
    assert row["operations"] > 100 and row["host_launches"] == 0  # of a GPU
    assert 0 < row["longest"][0]["ms"] < row["busy_ms"]
    assert row["steps_a_second_1"] > 0
    assert row["forward_ms"].keys() == {"2 exact", "2 tf32"}
    assert capsys.readouterr().out.count("| operation |") == 1


def test_ways_of_convolutions(tmp_path: Path, capsys) -> None:
    out = tmp_path / "figures.json"
    assert convolutions.main(["--sizes", "90", "--points", "2", "--repeats", "1", "--json",
                              str(out)]) == 0
    steps = json.loads(out.read_text())["steps"]
    assert [row["amp"] for row in steps] == ["on", "off"]
    for row in steps:
        assert row["seconds"].keys() == convolutions.WAYS.keys()
        assert row["of_library"]["ours"] == row["seconds"]["ours"] / row["seconds"]["library"] > 0
    assert capsys.readouterr().out.count("| 90x120 |") == 2


def test_counted_work_of_a_linear_layer() -> None:
    """Forward, and the gradient of the weights: 2 * 4 * 8 * 16 operations each."""
    layer, x = nn.Linear(8, 16, bias=False), torch.ones(4, 8)
    assert roofline.count(lambda: layer(x).sum().backward())[0] == 2 * 2 * 4 * 8 * 16
    a = torch.ones(100)
    assert roofline.count(lambda: a + a[:1].expand(100))[1] == 4 * (100 + 1 + 100)


@pytest.mark.parametrize("groups", [1, 8])
def test_counted_work_of_a_convolution(groups: int) -> None:
    """An output of 2x16x6x6 of 3x3 kernels on 8 / groups channels; forward, and the gradients of
    weights and input."""
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=groups, bias=False)
    x = torch.ones(2, 8, 6, 6, requires_grad=True)
    assert roofline.count(lambda: layer(x).sum().backward())[0] == (
        3 * 2 * (2 * 16 * 6 * 6) * 9 * 8 // groups)


def test_a_backbone_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no network like deeplab:mobilenetv2"):
        run.parse(["--networks", "deeplab:vgg"])
