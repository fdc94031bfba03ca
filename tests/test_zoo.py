"""Packed and converted checkpoints: they load as last.pt does, say what is true, and tell nothing
of the machine they come from."""

from __future__ import annotations

import csv
import hashlib
import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors import safe_open

import query
import train
from datasets import DATASETS
from datasets.spec import spec_from_dict
from datasets.voc import VOC_AUGMENTED
from tests.conftest import RUN, quick_flags
from tests.networks.original_files import deeplab_logits, deeplab_state
from utils import zoo
from utils.checkpoints import load_checkpoint, save_safetensors
from utils.errors import InputError, run_program
from utils.models import load_model
from utils.runs import public_command

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tiny_camvid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of two epochs. Not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    assert train.main([*quick_flags(), "--dir_dataset", str(tiny_camvid),
                       "--dir_checkpoints", str(out)]) == 0
    record = json.loads((out / RUN / "args.json").read_text())
    record["command"] = ["/home/ada/venv/bin/python", "/home/ada/pixelpick/train.py",
                         "--dir_dataset", str(tiny_camvid), "--dir_checkpoints=/home/ada/runs"]
    (out / RUN / "args.json").write_text(json.dumps(record))
    return out / RUN


def pack(run: Path, output: Path, *flags: str) -> Path:
    assert zoo.main(["pack", str(run), "--output", str(output), "--device", "cpu", *flags]) == 0
    (path,) = output.glob("*.safetensors")
    return path


def last_row(run: Path) -> dict[str, str]:
    return list(csv.DictReader((run / "metrics.csv").open()))[-1]


# --- pack -------------------------------------------------------------------------------------


def test_float32_is_last_pt(run, tmp_path):
    path = pack(run, tmp_path, "--precision", "float32")
    assert path.name == f"{RUN}_8px_last.safetensors"
    ours, packed = load_model(run / "1_query" / "last.pt", device=CPU), load_model(path, device=CPU)
    assert packed.spec == ours.spec
    assert packed.config == json.loads(json.dumps(ours.config))
    for name, tensor in ours.network.state_dict().items():
        assert torch.equal(packed.network.state_dict()[name], tensor), name
    assert "bit for bit" in path.with_suffix(".md").read_text()


def test_half_keeps_batch_norm_and_is_measured(run, tmp_path, tiny_camvid):
    path = pack(run, tmp_path, "--dir_dataset", str(tiny_camvid), "--n_workers", "1")
    with safe_open(path, framework="pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            if tensor.is_floating_point():
                assert tensor.dtype == (torch.float16 if tensor.ndim > 1 else torch.float32), name
    size = (run / "1_query" / "last.pt").stat().st_size
    assert 0.49 * size < path.stat().st_size < 0.53 * size
    ours, packed = load_model(run / "1_query" / "last.pt", device=CPU), load_model(path, device=CPU)
    assert {t.dtype for t in packed.network.parameters()} == {torch.float32}
    with torch.no_grad():
        x = torch.randn(2, 3, 48, 64)
        expected = ours.network(x)
        difference = (packed.network(x) - expected).abs().max()
    assert 0 < difference < 0.01 * expected.std()
    card = path.with_suffix(".md").read_text()
    assert "On 3 evaluation images" in card and "mIoU goes from" in card


def test_weights_beyond_half():
    with pytest.raises(InputError, match="conv.weight has weights beyond float16.*float32"):
        zoo.stored({"conv.weight": torch.full((1, 1), 1e5)}, precision="half")
    kept = zoo.stored({"norm.running_var": torch.tensor([1e5, 1e-9])}, precision="half")
    assert kept["norm.running_var"].tolist() == torch.tensor([1e5, 1e-9]).tolist()


def test_card(run, tmp_path):
    path = pack(run, tmp_path, "--licence", "CC BY 4.0")
    card, row = path.with_suffix(".md").read_text(), last_row(run)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_name(path.name + ".sha256").read_text() == f"{digest}  {path.name}\n"
    assert digest in card and "CC BY 4.0" in card and "split `test`" in card
    assert f"8 an image, {row['pixels_total']} in all" in card
    for label, column in (("last (this file)", "miou_last"), (
            f"best, epoch {row['epoch_best']}", "miou_best"), ("sky", "iou_sky")):
        value = float(row[column])
        assert f"| {label} | {100 * value:.2f} |" in card or value != value
    assert "    python train.py --dir_dataset CamVid --dir_checkpoints=runs\n" in card
    assert "has not been measured" in card


def test_nothing_of_the_machine_is_told(run, tmp_path, tiny_camvid):
    path = pack(run, tmp_path)
    for text in (path.read_bytes(), path.with_suffix(".md").read_bytes()):
        for private in (b"/home/ada", str(tiny_camvid).encode(), str(run.parent).encode()):
            assert private not in text


@pytest.mark.parametrize(("words", "command"), [
    (["a.py", "--x", "/home/ada/my data", "-qs", "b/c"], "a.py --x 'my data' -qs b/c"),
    (["a.py", "--x=/home/ada/d", "~/e", "../../f"], "a.py --x=d e f"),
])
def test_public_command(words, command):
    assert public_command(words) == command


def test_another_round_and_its_best_epoch(run, tmp_path):
    path = pack(run, tmp_path, "--round", "0", "--which", "best")
    assert path.name == f"{RUN}_4px_best.safetensors"
    best = load_checkpoint(run / "0_query" / "best.pt")
    packed = load_checkpoint(path)
    assert (packed["epoch"], packed["config"]["round"]) == (best["epoch"], 0)
    assert "This is the network of the best epoch" in path.with_suffix(".md").read_text()


def test_full_masks(run_train, tmp_path):
    out = run_train("--n_pixels_by_us", "0", "--n_epochs", "1", without=("--max_budget",))
    (folder,) = out.iterdir()
    path = pack(folder, tmp_path / "zoo")
    assert path.name == "camvid_d12_deeplab_mobilenetv2_full_0_last.safetensors"
    assert "trained on full masks" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize(("flags", "message"), [
    (["--round", "7"], "no finished round 7; choose from 0, 1, or last"),
    (["--round", "x"], "'x' is not an integer"),
    (["--precision", "int8"], "int8"),
])
def test_bad_flags(run, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        zoo.main(["pack", str(run), "--output", str(tmp_path), *flags])


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match="args.json"):
        zoo.main(["pack", str(tmp_path)])


# --- what was packed, elsewhere -----------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_query_from_the_web_is_that_of_the_file(run, tmp_path, tiny_camvid, monkeypatch, capsys):
    """And an address without a file is one line and exit code 2."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = pack(run, tmp_path / "zoo", "--precision", "float32")

    def asked(checkpoint: str, folder: str) -> dict:
        assert query.main(["--checkpoint", checkpoint, "--dir_dataset", str(tiny_camvid),
                           "--dir_output", str(tmp_path / folder), "--device", "cpu",
                           "--n_workers", "1"]) == 0
        return json.loads((tmp_path / folder / "query.json").read_text())

    handler = partial(Quiet, directory=str(path.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        from_web = asked(f"{url}/{path.name}", "web")
        with pytest.raises(SystemExit) as ended:
            run_program(lambda: query.main(["--checkpoint", "hf://me/zoo/none.pt",
                                            "--dir_dataset", str(tiny_camvid)]))
        server.shutdown()
    assert ended.value.code == 2
    assert [line for line in capsys.readouterr().err.splitlines() if "404" in line][0].startswith(
        "error: cannot get hf://me/zoo/none.pt")
    assert asked(f"{url}/{path.name}", "again") == from_web == asked(str(path), "file")


@pytest.mark.parametrize("spec", [*DATASETS.values(), VOC_AUGMENTED], ids=lambda spec: spec.name)
def test_specs_survive_json(spec):
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_foreign_safetensors(tmp_path):
    save_safetensors(tmp_path / "a.safetensors", {"network": {"x": torch.zeros(2)}})
    with pytest.raises(InputError, match="is no checkpoint of this program .no config"):
        load_model(tmp_path / "a.safetensors", device=CPU)
    broken = (tmp_path / "a.safetensors").read_bytes()[:-4]
    (tmp_path / "a.safetensors").write_bytes(broken)
    with pytest.raises(InputError, match="a.safetensors: cannot be read as a checkpoint"):
        load_model(tmp_path / "a.safetensors", device=CPU)


# --- convert ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the authors publish them, of CamVid's 11 classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("released") / "best_miou_model.pt"
    torch.save({"model": deeplab_state(11)}, path)
    return path


def test_converted_checkpoint_predicts(released, tmp_path, tiny_camvid):
    assert zoo.main(["convert", str(released), "--dataset_name", "cv",
                     "--output", str(tmp_path)]) == 0
    path = tmp_path / "best_miou_model.safetensors"
    model = load_model(path, device=CPU)
    assert model.spec == DATASETS["camvid"] and model.config["mean"][0] == 0.41189489566336
    with torch.no_grad():
        x = torch.randn(1, 3, 64, 64)
        theirs = deeplab_logits(torch.load(released)["model"], x)
        assert (model.network(x) - theirs).abs().max() < 1e-4 * theirs.abs().max()
    config = load_checkpoint(path)
    config["config"]["downsample"] = 6  # CamVid's grid, for a test's time
    save_safetensors(path, config)
    assert query.main(["--checkpoint", str(path), "--dir_dataset", str(tiny_camvid), "--device",
                       "cpu", "--n_workers", "1", "--use_mc_dropout", "--mc_n_steps", "2"]) == 0
    asked = json.loads((tmp_path / "next_query" / "query.json").read_text())
    assert len(asked["images"]) == 5


def test_what_convert_refuses(released, tmp_path):
    with pytest.raises(InputError, match="was trained on 11 classes, but voc has 21"):
        zoo.main(["convert", str(released), "--dataset_name", "voc", "--output", str(tmp_path)])
    with pytest.raises(InputError, match="unknown dataset 'demo'"):
        zoo.main(["convert", str(released), "--dataset_name", "demo"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="PixelPick's authors.*utils.zoo convert"):
        load_model(released, device=CPU)
