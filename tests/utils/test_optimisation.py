"""The average of the weights, and the schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.optimisation import SCHEDULES, Average, build_schedule


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_the_average_is_the_recursion() -> None:
    """Parameters and running statistics; the counter of batches is the network's."""
    network = small_network()
    average = Average(network, decay=0.4)
    assert not average.module.training and network.training
    expected: dict[str, torch.Tensor] = {}
    for n, kept in enumerate((0.0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 0.4, 0.4)):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network(torch.randn(5, 3))
        for name, value in network.state_dict().items():
            value = value.double()
            expected[name] = kept * expected.get(name, value) + (1 - kept) * value
        expected["1.num_batches_tracked"] = torch.tensor(n + 1.0, dtype=torch.float64)
        assert average.n_averaged == n
        average.update(network)
        for name, value in average.module.state_dict().items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not average.module.training
    assert not torch.equal(average.module[0].weight, network[0].weight)


@pytest.mark.parametrize(("name", "factors"), [
    ("cosine", (1.0, 0.5, 0.0)), ("poly", (1.0, 0.5**0.9, 0.0)), ("constant", (1.0, 1.0, 1.0)),
    ("multistep", (1.0, 0.1, 0.01))])
def test_schedules_at_start_middle_and_end(name: str, factors: tuple[float, ...]) -> None:
    assert [SCHEDULES[name](t) for t in (0.0, 0.5, 1.0)] == pytest.approx(factors, abs=1e-12)
    optimizer = torch.optim.SGD(small_network().parameters(), lr=2.0)
    schedule = build_schedule(optimizer, name=name, n_steps=4)
    seen = [schedule.get_last_lr()[0]]
    for _ in range(4):
        optimizer.step()
        schedule.step()
        seen += schedule.get_last_lr()
    assert seen[::2] == pytest.approx([2 * factor for factor in factors], abs=1e-12)
