"""`--compile`: once in a round, the same numbers but for rounding, and a way on without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import build_network
from tests.conftest import RUN
from train import forward_of
from utils.checkpoints import load_checkpoint
from utils.compiling import CompiledForward
from utils.device import select_autocast

FORWARD = forward_of(select_autocast("off", torch.device("cpu")))


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compiles as far as PyTorch's tracing, which needs no C++ compiler; one entry for each
    graph."""
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list):
        graphs.append(f"graph of {len(graph.graph.nodes)} operations")
        return graph.forward

    compile_really = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, *, dynamic, options:
                        compile_really(function, dynamic=dynamic, backend=backend))
    return graphs


class Tiny(nn.Module):
    """What a network takes and returns; tracing a real one takes half a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor, points: torch.Tensor, *, statistics_points: torch.Tensor,
                at_all: bool) -> torch.Tensor:
        assert not at_all
        features = F.dropout(self.norm(self.conv(x)), training=self.training).mean(dim=(2, 3))
        return features[:, None] * (points.sum(2) + statistics_points.mean())[..., None]


def test_one_graph_for_each_number_of_points(compilations: list[str]) -> None:
    """Also for another network of the same shapes; a smaller batch is not compiled; outputs,
    running statistics and names are those of the network uncompiled."""
    forward = CompiledForward(FORWARD, batch_size=3)
    for expected, n_images, n_points in ((1, 3, 4), (1, 3, 4), (1, 2, 4), (2, 3, 8)):
        network, other = Tiny(), Tiny()
        other.load_state_dict(network.state_dict())
        tensors = (torch.randn(n_images, 3, 8, 8), torch.rand(n_images, n_points, 2),
                   torch.rand(n_images, 24, 2))
        results = []
        for call, module in ((FORWARD, network), (forward, other)):
            torch.manual_seed(0)
            results.append([call(module, *tensors), *module.state_dict().values()])
        torch.testing.assert_close(*results)
        assert list(other.state_dict()) == list(network.state_dict())
        assert len(compilations) == expected


def test_a_run_compiles_once_a_round(run_train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images make two batches of two; checkpoints have the names they have without."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: compiled.append(how) or function)
    run = run_train("--compile", "--n_epochs", "1") / RUN
    assert compiled == [{"dynamic": False, "options": {"fallback_random": True}}] * 2
    state = load_checkpoint(run / "1_query" / "last.pt")["network"]
    assert state.keys() == build_network("deeplab", backbone="mobilenetv2",
                                         n_classes=11).state_dict().keys()


def test_without_a_compiler_it_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                       capsys: pytest.CaptureFixture) -> None:
    """One line, and the numbers of the network uncompiled."""
    from torch._inductor import config

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config.cpp, "cxx", (str(tmp_path / "no-compiler"),))
    monkeypatch.setattr(config, "force_disable_caches", True)
    network, images = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8)
    forward = CompiledForward(FORWARD, batch_size=2)
    for _ in range(2):
        torch.testing.assert_close(forward(network, images), FORWARD(network, images))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "--compile" in line]
    assert line.endswith("going on without")
