"""Query by committee: dropout in a trained network, its queries, flags and programs."""

from __future__ import annotations

import gc
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import args
import query
from tests.conftest import RUN, quick_flags
from tests.test_query import COMMITTEES, TinyNetwork, ask, seven_images
from utils.acquisition import entropy
from utils.dropout import keyed_dropout
from utils.errors import InputError
from utils.files import read_json
from utils.inference import Predictor

# --- dropout ----------------------------------------------------------------------------------


def dropped(layer: nn.Module, x: Tensor, seeds: list[int]) -> Tensor:
    network = nn.Sequential(layer).eval()
    with keyed_dropout(network, seeds):
        return network(x)


@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    x = torch.ones(4, 8, 32, 32).to(memory_format=torch.channels_last)
    y = dropped(nn.Dropout(p), x, [1, 2, 3, 4])
    assert y.is_contiguous(memory_format=torch.channels_last)
    share = (y == 0).float().mean(dim=(1, 2, 3))
    assert (share - p).abs().max() < 5 * math.sqrt(p * (1 - p) / 8192) + 1e-9
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p + (p == 1))))


def test_masks_are_those_of_the_image_in_every_batch():
    x = torch.ones(3, 4, 6, 6)
    together = dropped(nn.Dropout(0.5), x, [1, 2, 1])
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    assert torch.equal(together[1:2], dropped(nn.Dropout(0.5), x[:1], [2]))
    # Every layer has a mask of its own.
    assert not torch.equal(together, dropped(nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5)), x,
                                             [1, 2, 1]))


def test_whole_channels_are_dropped_by_dropout2d():
    y = dropped(nn.Dropout2d(0.5), torch.ones(2, 64, 5, 5), [1, 2])
    assert set(y.sum(dim=(2, 3)).unique().tolist()) == {0, 50}


@pytest.mark.parametrize("network", [nn.Conv2d(1, 1, 1), nn.Dropout(0.0)])
def test_a_network_without_dropout_is_no_committee(network):
    with pytest.raises(InputError, match="needs a network with dropout"), \
            keyed_dropout(network, [1]):
        pass


def test_the_rest_of_the_network_is_left_as_it_was():
    """Batch norm by its running statistics; modes, hooks and statistics as before, also after an
    error; torch's generator is not drawn from."""
    network = TinyNetwork().train()
    network.layers[1].eval()  # a frozen batch norm
    during = []
    network.layers[1].register_forward_hook(lambda norm, *_: during.append(norm.training))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()

    def check() -> None:
        assert [module.training for module in network.modules()] == modes
        assert not any(network.layers[2]._forward_hooks)
        assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())

    ask(network, seven_images(), use_mc_dropout=True, mc_n_steps=3)
    check()
    assert during and not any(during) and torch.equal(random_state, torch.get_rng_state())

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = network.layers[4].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        ask(network, seven_images(), use_mc_dropout=True)
    handle.remove()
    check()


# --- queries by committee ---------------------------------------------------------------------


def test_a_query_says_what_the_mean_of_the_passes_says():
    """Whatever the vote type; the scores are those of what was voted."""
    network, split = TinyNetwork(), seven_images()
    predictor = Predictor(device=torch.device("cpu"), batch_size=2, mean=(0.4, 0.5, 0.6),
                          std=(0.2, 0.3, 0.25))
    committees = {i: committee.of_image(position)
                  for index, committee in predictor.committees(network, split, n_passes=5,
                                                               key=(0, "mc_dropout", 1))
                  for position, i in enumerate(index.tolist())}
    for vote_type, voted in (("soft", "mean"), ("hard", "votes")):
        found, entropies = ask(network, split, strategy="least_confidence", use_mc_dropout=True,
                               mc_n_steps=5, vote_type=vote_type, top_n_percent=0)
        for i, committee in committees.items():
            y, x = found.pixels[i].T
            p, prediction = committee.mean[0, :, y, x].max(dim=0)
            np.testing.assert_allclose(found.probabilities[i], p, atol=1e-5)
            assert np.array_equal(found.predictions[i], prediction)
            np.testing.assert_allclose(entropies.reshape(7, 6)[i],
                                       entropy(committee.mean)[0, y, x], atol=1e-5)
            distribution = getattr(committee, voted)
            np.testing.assert_allclose(found.scores[i], 1 - distribution[0, :, y, x].amax(dim=0),
                                       atol=1e-5)
            if vote_type == "hard":
                assert set((5 * found.scores[i]).round(3)) <= {0, 1, 2, 3, 4}
            best = (1 - distribution.amax(dim=1)).flatten().sort(descending=True).values[:6]
            np.testing.assert_allclose(found.scores[i], best, atol=1e-5)


def test_passes_differ_and_more_of_them_say_more():
    """The passes' mean nears that of many; without dropout's noise there would be nothing to."""
    network, split = TinyNetwork(), seven_images().subset([0])
    predictor = Predictor(device=torch.device("cpu"), batch_size=1, mean=(0.5,) * 3, std=(1,) * 3)

    def mean(n_passes: int, seed: int) -> Tensor:
        ((_, committee),) = predictor.committees(network, split, n_passes=n_passes, key=(seed, "x"))
        return committee.mean

    target = mean(400, 0)
    errors = [(mean(n, 1) - target).square().mean().item() for n in (1, 4, 64)]
    assert errors[0] > 2 * errors[1] > 8 * errors[2] > 0


@pytest.mark.parametrize("n_passes", [2, 12])
def test_memory_does_not_grow_with_the_passes(n_passes):
    """The tensors of a map's size that are alive in any pass are those of the second."""
    split, n_classes = seven_images().subset([0, 1]), 5
    n_numbers, counts = 2 * n_classes * 24 * 32, []

    class Counting(TinyNetwork):
        def classify(self, x: Tensor, size: tuple[int, int]) -> Tensor:
            counts.append(sum(type(o) is Tensor and o.numel() == n_numbers
                              for o in gc.get_objects()))
            return super().classify(x, size)

    network = Counting()
    ask(network, split, use_mc_dropout=True, mc_n_steps=n_passes)
    assert len(counts) == n_passes and len(network.seen) == 1  # the backbone runs once
    assert max(counts) == counts[1] <= counts[0] + 4


@pytest.mark.parametrize("how", [how for how in COMMITTEES if how["strategy"] != "random"])
def test_a_diverged_network_is_named_as_bad_input(how):
    network = TinyNetwork()
    network.layers[-1].bias.data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"^train/\d.png: .*diverge"):
        ask(network, seven_images(), **how)


# --- flags and programs -----------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "message"), [
    (("--vote_type", "hard"), "--vote_type hard has no meaning without --use_mc_dropout"),
    (("--mc_n_steps", "5"), "--mc_n_steps 5 has no meaning without --use_mc_dropout"),
    (("--mc_layers", "last"), "--mc_layers last has no meaning without --use_mc_dropout"),
    (("--temperature", "0"), "'0' is not"),
    (("--ask_balance", "0.5", "--top_n_percent", "1"),
     "--ask_balance 0.5 has no meaning with --top_n_percent 1"),
    (("-qs", "balent"), "balent asks a committee: give --use_mc_dropout"),
    (("--use_mc_dropout", "--mc_n_steps", "0"), "'0' is not an integer of at least 1"),
    (("--use_mc_dropout", "--vote_type", "loud"), "unknown vote type 'loud'; choose from soft, h"),
    (("-qs", "bald"), "bald asks a committee: give --use_mc_dropout"),
    (("-qs", "vote_entropy"), "vote_entropy asks a committee: give --use_mc_dropout"),
    (("-qs", "bald", "--use_mc_dropout", "--mc_n_steps", "1"), "--mc_n_steps of at least 2"),
])
def test_flags_without_a_meaning(argv, message):
    with pytest.raises(InputError, match=message):
        args.parse_arguments(["--dataset_name", "cv", *argv])


def test_a_network_without_dropout_is_refused_before_anything_is_written(tiny_camvid: Path,
                                                                         tmp_path: Path):
    import train

    with pytest.raises(InputError, match="--mc_dropout_p 0"):
        train.main([*quick_flags(), "--network_name", "FPN", "--backbone", "resnet18",
                    "--weight_type", "random", "--use_mc_dropout", "--mc_dropout_p", "0",
                    "--dir_dataset", str(tiny_camvid), "--dir_checkpoints", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_the_papers_committee_is_the_default():
    asking = args.asking_kwargs(args.parse_arguments(["--dataset_name", "cv", "--use_mc_dropout"]))
    assert (asking["use_mc_dropout"], asking["mc_n_steps"], asking["vote_type"]) == (
        True, 20, "soft")


@pytest.fixture(scope="session")
def committee_run(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of train.py, asked by a committee."""
    import train

    out = tmp_path_factory.mktemp("committee")
    assert train.main([*quick_flags(), "--dir_dataset", str(tiny_camvid), "--dir_checkpoints",
                       str(out), "--use_mc_dropout", "--mc_n_steps", "3"]) == 0
    return out / RUN


def asked_by_script(folder: Path, data: Path, out: Path, *flags: str) -> dict:
    assert query.main(["--checkpoint", str(folder / "0_query" / "last.pt"), "--dir_dataset",
                       str(data), "--device", "cpu", "--exclude_void", "--dir_output", str(out),
                       *flags]) == 0
    return read_json(out / "query.json")


def pixels_of(asked: dict) -> list[list[list[int]]]:
    return [image["pixels"] for image in asked["images"]]


def test_training_asks_a_committee_and_the_query_script_the_same(
        committee_run: Path, tiny_camvid: Path, tmp_path: Path):
    asked = read_json(committee_run / "1_query" / "query.json")
    assert asked == asked_by_script(committee_run, tiny_camvid, tmp_path)
    for batch_size in ("1", "2", "3"):
        again = asked_by_script(committee_run, tiny_camvid, tmp_path, "--batch_size", batch_size)
        assert pixels_of(again) == pixels_of(asked)


@pytest.mark.parametrize("flags", [
    ("-qs", "bald"), ("-qs", "vote_entropy", "--mc_n_steps", "2"), ("--vote_type", "hard"),
    ("-qs", "entropy", "--mc_n_steps", "4"), ("-qs", "random"), ("-qs", "balent"),
    ("--mc_layers", "last"), ("--temperature", "3")])
def test_the_query_script_asks_other_committees(committee_run: Path, tiny_camvid: Path,
                                                tmp_path: Path, flags: tuple[str, ...]):
    asked = asked_by_script(committee_run, tiny_camvid, tmp_path, *flags)
    assert [len(pixels) for pixels in pixels_of(asked)] == [4] * 5
    assert asked != read_json(committee_run / "1_query" / "query.json")


def test_checkpoints_from_before_there_were_committees(committee_run: Path, tiny_camvid: Path,
                                                       tmp_path: Path):
    older = shutil.copytree(committee_run / "0_query", tmp_path / "run" / "0_query").parent
    content = torch.load(older / "0_query" / "last.pt", weights_only=True)
    for name in ("use_mc_dropout", "mc_n_steps", "mc_layers", "vote_type", "temperature"):
        del content["config"]["asking"][name]
    torch.save(content, older / "0_query" / "last.pt")
    plain = asked_by_script(older, tiny_camvid, tmp_path / "a")
    assert plain != read_json(committee_run / "1_query" / "query.json")
    assert asked_by_script(older, tiny_camvid, tmp_path / "b", "--use_mc_dropout", "--mc_n_steps",
                           "3") == read_json(committee_run / "1_query" / "query.json")
    with pytest.raises(InputError, match="bald asks a committee"):
        asked_by_script(older, tiny_camvid, tmp_path / "c", "-qs", "bald")
    content["config"]["asking"]["strategy"] = "my_own"
    torch.save(content, older / "0_query" / "last.pt")
    with pytest.raises(InputError, match="unknown query strategy 'my_own'; choose from margin_"):
        asked_by_script(older, tiny_camvid, tmp_path / "d")
