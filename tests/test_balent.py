"""Balanced entropy, dropout before the classifier alone, and the temperature of the logits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import beta
from torch import Tensor, nn

from networks import build_network
from networks.authors import OriginalDeepLab
from tests.test_query import TinyNetwork, ask, same_pixels, seven_images
from utils.acquisition import Committee, balent, entropy
from utils.dropout import active_dropout, keyed_dropout
from utils.errors import InputError
from utils.inference import Predictor, resized
from utils.seeds import seed_of
from utils.temperature import calibration_error, fitted_temperature, negative_log_likelihood

# --- balanced entropy ---------------------------------------------------------------------------


def balent_of(passes: Tensor) -> Tensor:
    """Of passes `(T, N, C)`: `(N,)`."""
    committee = Committee.of(p.T[None, :, None] for p in passes)
    return balent(committee.mean, committee)[0, 0]


def by_definition(passes: np.ndarray) -> float:
    """Of one pixel's passes `(T, C)`, by scipy's Beta distribution."""
    m, v = passes.mean(axis=0), passes.var(axis=0)
    a = m**2 * (1 - m) / v - m
    b = (1 / m - 1) * a
    h = -(m * np.log(m)).sum()
    value = ((m * beta(a + 1, b).entropy()).sum() + h) / (h + math.log(2))
    return 1 / value if value >= 0 else value


def random_passes(sharpness: float, spread: float, *, n: int = 40, seed: int = 0) -> Tensor:
    """`(20, n, 5)` in float64: a distribution a pixel, another one near it in each pass."""
    generator = torch.Generator().manual_seed(seed)
    centre = sharpness * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    noise = spread * torch.randn(20, n, 5, generator=generator, dtype=torch.float64)
    return (centre + noise).softmax(dim=-1)


@pytest.mark.parametrize(("sharpness", "spread"), [(0.5, 0.05), (0.5, 0.5), (1, 1.5), (3, 0.5)])
def test_balent_is_that_of_scipys_beta_distributions(sharpness, spread):
    passes = random_passes(sharpness, spread)
    expected = [by_definition(of_pixel) for of_pixel in passes.numpy().swapaxes(0, 1)]
    found = balent_of(passes)
    near = np.abs(expected) < 50  # not where BalEnt is nearly 0
    assert near.sum() > 35
    np.testing.assert_allclose(found[near], np.array(expected)[near], rtol=2e-3, atol=2e-3)


def test_balent_is_positive_somewhere_and_negative_elsewhere():
    """Positive: a wide open answer. Both cases are compared above."""
    assert (balent_of(random_passes(0.1, 1.0)) > 1).any()
    assert (balent_of(random_passes(3, 0.1)) < 0).all()


def test_variance_is_that_of_the_passes_also_where_it_is_small():
    passes = random_passes(3, 1e-3).float()
    committee = Committee.of(p.T[None, :, None] for p in passes)
    expected = passes.double().var(dim=0, correction=0).T
    torch.testing.assert_close(committee.variance[0, :, 0].double(), expected, rtol=1e-2,
                               atol=1e-13)


def test_order_of_classes_and_of_passes_does_not_matter():
    passes = random_passes(1, 0.8).float()
    found = balent_of(passes)
    torch.testing.assert_close(balent_of(passes[:, :, [3, 0, 4, 1, 2]]), found, rtol=1e-4, atol=0)
    torch.testing.assert_close(balent_of(passes.flip(0)), found, rtol=1e-3, atol=1e-3)


def test_limits():
    """In the order of asking: undecided passes that differ; undecided ones that agree; certain
    ones of two classes; certain ones of one class, of which nothing is to be learnt."""
    wide = random_passes(0, 1.0, n=1)[:, 0]
    uniform = torch.full((20, 5), 0.2, dtype=torch.float64)
    camps = torch.eye(5, dtype=torch.float64)[torch.arange(20) % 2]
    certain = torch.eye(5, dtype=torch.float64)[torch.zeros(20, dtype=torch.long)]
    scores = balent_of(torch.stack([wide, uniform, camps, certain], dim=1).float())
    assert scores.isfinite().all() and scores[0] > 1
    assert (scores.diff() < 0).all() and scores[1] < 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_always_finite(dtype):
    """Also for passes that say exactly 0 and 1, or nearly."""
    logits = torch.randn(6, 500, 4, generator=torch.Generator().manual_seed(1))
    for scale in (0, 1e-6, 1, 30, 300):
        scores = balent_of((scale * logits).softmax(dim=-1).to(dtype))
        assert scores.isfinite().all() and scores.float().isfinite().all()


def test_a_diverged_network_does_not_look_certain():
    passes = random_passes(1, 1).float()
    passes[3, 2] = float("nan")
    assert balent_of(passes).isnan().tolist() == [i == 2 for i in range(40)]


# --- dropout before the classifier alone --------------------------------------------------------


def committees(network: nn.Module, *, layers: str, n_passes: int = 3, **kwargs) -> Committee:
    """Of one image of `seven_images`, 24x32."""
    predictor = Predictor(device=torch.device("cpu"), batch_size=1, mean=(0.5,) * 3, std=(1,) * 3)
    ((_, committee),) = predictor.committees(network, seven_images().subset([0]), key=(0, "x"),
                                             n_passes=n_passes, layers=layers, **kwargs)
    return committee


def in_full(network: nn.Module, *, layers: str, n_passes: int = 3) -> Tensor:
    """The mean of passes through the whole network."""
    split = seven_images()
    x = torch.from_numpy(split.images[0]).permute(2, 0, 1)[None].float() / 255 - 0.5
    total = torch.zeros(())
    for number in range(n_passes):
        with torch.no_grad(), keyed_dropout(network, [seed_of(0, "x", split.names[0], number)],
                                            layers=layers):
            total = total + resized(network(x), size=x.shape[-2:]).softmax(dim=1)
    return total / n_passes


@pytest.fixture(scope="module")
def deeplab() -> nn.Module:
    torch.manual_seed(0)
    return build_network("deeplab", backbone="mobilenetv2", n_classes=5).eval()


@pytest.fixture(scope="module")
def fpn() -> nn.Module:
    torch.manual_seed(0)
    return build_network("FPN", backbone="resnet18", n_classes=5).eval()


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.manual_seed(0)
    return build_network("original_deeplab", backbone="mobilenetv2", n_classes=5).eval()


@pytest.mark.parametrize(("name", "layers"), [("deeplab", "all"), ("deeplab", "last"),
                                              ("fpn", "all"), ("fpn", "last"),
                                              ("original", "last")])
def test_passes_that_share_features_are_passes_in_full(name, layers, request):
    network = request.getfixturevalue(name)
    torch.testing.assert_close(committees(network, layers=layers).mean,
                               in_full(network, layers=layers), rtol=0, atol=1e-6)


def test_which_modules_drop(deeplab, fpn, original):
    assert active_dropout(deeplab, "last") == [deeplab.decoder.dropout2]
    assert len(active_dropout(deeplab)) == 3
    assert active_dropout(fpn) == active_dropout(fpn, "last") == [fpn.decoder.dropout]
    assert isinstance(original, OriginalDeepLab)
    undropped = build_network("deeplab", backbone="mobilenetv2", n_classes=5, mc_dropout_p=0.0)
    assert len(active_dropout(undropped)) == 2
    with pytest.raises(InputError, match="--mc_dropout_p 0"):
        active_dropout(undropped, "last")


def test_all_but_the_classifier_runs_once(deeplab):
    calls = {"conv2": 0, "classifier": 0}
    handles = [getattr(deeplab.decoder, name).register_forward_hook(
        lambda *_, name=name: calls.update({name: calls[name] + 1})) for name in calls]
    committees(deeplab, layers="last", n_passes=5)
    for handle in handles:
        handle.remove()
    assert calls == {"conv2": 1, "classifier": 5}


# --- temperature --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"use_mc_dropout": True, "mc_n_steps": 3}])
def test_a_temperature_divides_the_logits(how):
    """As a classifier with divided weights; with 1 nothing changes."""
    split, network, divided = seven_images(), TinyNetwork(), TinyNetwork()
    divided.layers[-1].weight.data /= 3
    divided.layers[-1].bias.data /= 3
    how = how | {"strategy": "entropy", "top_n_percent": 0}
    plain, _ = ask(network, split, **how)
    found, entropies = ask(network, split, temperature=3.0, **how)
    expected, of_divided = ask(divided, split, **how)
    np.testing.assert_allclose(entropies, of_divided, atol=1e-5)
    for a, b in zip(found.scores, expected.scores, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    again, _ = ask(network, split, temperature=1.0, **how)
    assert same_pixels(again, plain) and not same_pixels(found, plain)
    assert all(np.array_equal(a, b) for a, b in zip(again.scores, plain.scores, strict=True))


def test_a_committees_temperature_is_that_of_each_pass():
    committee = committees(TinyNetwork().eval(), layers="all", n_passes=1, temperature=2.0)
    plain = committees(TinyNetwork().eval(), layers="all", n_passes=1)
    torch.testing.assert_close(committee.mean, (plain.mean.log() / 2).softmax(dim=1))
    torch.testing.assert_close(committee.mean_entropy, entropy(committee.mean))


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_fitted_temperature_is_the_one_that_labels_were_drawn_with(true):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20000, 4, generator=generator)
    labels = torch.multinomial((logits / true).softmax(dim=1), 1, generator=generator)[:, 0]
    found = fitted_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.03)
    slow = minimize_scalar(lambda t: -np.log(torch.softmax(logits.double() / t, 1).numpy()[
        np.arange(20000), labels.numpy()]).mean(), bounds=(0.1, 10), method="bounded")
    assert found == pytest.approx(slow.x, rel=1e-3)
    if true != 1:
        assert (negative_log_likelihood(logits, labels, found)
                < negative_log_likelihood(logits, labels, 1.0))
        assert calibration_error(logits, labels, found) < calibration_error(logits, labels, 1.0)


def test_no_labels_have_no_temperature():
    with pytest.raises(InputError, match="no labelled pixel"):
        fitted_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def test_a_diverged_network_has_no_temperature():
    logits = torch.zeros(4, 3)
    logits[2, 1] = float("nan")
    with pytest.raises(InputError, match="not finite; did the training diverge"):
        fitted_temperature(logits, torch.zeros(4, dtype=torch.long))


def test_the_program_prints_the_flag(tiny_camvid: Path, tmp_path: Path, capsys):
    """Of an untrained network in a checkpoint."""
    from datasets import DATASETS
    from utils import temperature

    network = dict(name="deeplab", backbone="mobilenetv2", n_classes=11)
    torch.manual_seed(0)
    config = dict(dataset=DATASETS["camvid"].to_dict(), downsample=12, network=network, seed=0,
                  mean=[0.5] * 3, std=[0.25] * 3, n_images=None, asking={}, round=0)
    torch.save({"config": config, "network": build_network(**network).state_dict()},
               tmp_path / "last.pt")
    argv = ["--checkpoint", str(tmp_path / "last.pt"), "--dir_dataset", str(tiny_camvid),
            "--device", "cpu", "--n_workers", "1", "--batch_size"]
    with pytest.raises(InputError, match="required: --split"):
        temperature.main([*argv, "1"])
    printed = []
    for batch_size in ("1", "3"):
        assert temperature.main([*argv, batch_size, "--split", "test"]) == 0
        printed.append(capsys.readouterr().out.strip().splitlines()[-1])
    name, value = printed[0].split()
    assert name == "--temperature" and 0.05 <= float(value) <= 20
    assert float(printed[1].split()[1]) == pytest.approx(float(value), abs=2e-3)
    with pytest.raises(InputError, match="no split nowhere"):
        temperature.main([*argv, "1", "--split", "nowhere"])
