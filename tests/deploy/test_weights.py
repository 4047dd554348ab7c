"""A folder of weights opens as its run does, without unpickling, or says what is wrong with it."""

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from deploy.tiny import TinyTagger, train
from hepattn.data.error import DataError
from hepattn.deploy import attention_maps
from hepattn.deploy.weights import from_pretrained, main, save_weights
from hepattn.training.configs import ConfigError
from hepattn.training.load import LoadedRun, load_run
from hepattn.training.run_directory import RunDirectoryError
from hepattn.training.weights import read_weights


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "tagger"
    main([str(tiny_run), "--out", str(path)])
    return path


def answers(loaded: LoadedRun) -> Tensor:
    with torch.no_grad():
        return torch.cat([loaded.module(batch) for batch in loaded.test_batches()])


def test_the_folder_answers_as_the_run_bit_for_bit(folder: Path, tiny_run: Path) -> None:
    ours, theirs = from_pretrained(folder), load_run(tiny_run)
    assert torch.equal(answers(ours), answers(theirs))
    assert not ours.module.training
    assert ours.data.classes == theirs.data.classes
    assert ours.checkpoint == folder / "weights.safetensors"


def test_the_folder_holds_what_a_hub_shows(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "weights.safetensors", "extra_state.json", "config.yaml", "environment.json", "README.md",
    }  # fmt: skip
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["experiment"]["module"] == "deploy.tiny.TinyTagger"
    assert environment["experiment"]["values"] == {"model.num_classes": 3}
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["source"] == {"run": "tiny", "file": "best.ckpt"}
    assert not {"command", "platform"} & environment.keys()
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "hepattn"
    for text in ("629 parameters", "part_deta, part_pt_log", "QCD, Hbb, Hcc", "from_pretrained"):
        assert text in card


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    from_pretrained(folder)


def test_tools_for_runs_take_the_folder(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    attention_maps.main([str(folder), "--num", "1", "--output", str(out)])
    assert (out / "layers.json").is_file()


def test_a_folder_is_written_again_from_itself(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "deep" / "again"
    main([str(folder), "--out", str(again)])
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_the_default_folder_is_in_the_run(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    main([str(run)])
    assert torch.equal(answers(from_pretrained(run / "deploy" / "weights")), answers(load_run(run)))


def test_another_checkpoint_is_written_when_asked_for(tiny_run: Path, tmp_path: Path) -> None:
    main([str(tiny_run), "--checkpoint", "last", "--out", str(tmp_path / "w")])
    assert "`last.ckpt`" in (tmp_path / "w" / "README.md").read_text()
    assert torch.equal(
        answers(from_pretrained(tmp_path / "w")), answers(load_run(tiny_run, "last"))
    )


def test_figures_of_the_newest_test_go_along(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    for number, auc in (("test", 0.5), ("test_2", 0.75)):
        figures = {"auc": auc, "rejection": {"QCD": 12, "Hbb": None}, "roc": [1.0, 2.0]}
        path = run / "eval" / number / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(figures))
    main([str(run), "--out", str(tmp_path / "w")])
    assert json.loads((tmp_path / "w" / "metrics.json").read_text())["auc"] == 0.75
    card = (tmp_path / "w" / "README.md").read_text()
    assert "| auc | 0.75 |" in card
    assert "| rejection.QCD | 12 |" in card


def test_figures_of_other_weights_are_left_out(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "tiny")
    path = run / "eval" / "test" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    os.utime(path, (0, 0))
    with pytest.warns(UserWarning, match="is older than best.ckpt and left out"):
        main([str(run), "--out", str(tmp_path / "w")])
    assert not (tmp_path / "w" / "metrics.json").exists()


def test_nothing_is_overwritten(
    folder: Path, tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    before = (folder / "README.md").stat().st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        main([str(tiny_run), "--out", str(folder)])
    assert stop.value.code == 1
    assert f"error: {folder} exists; choose another --out" in capsys.readouterr().err
    assert (folder / "README.md").stat().st_mtime_ns == before


def test_options_of_the_config_are_refused(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([str(tiny_run), "--out", str(tmp_path / "w"), "--model.dim", "9"])
    assert "unrecognized arguments: --model.dim 9" in capsys.readouterr().err


def test_a_folder_that_does_not_open_as_the_run_is_not_left_behind(
    tiny_run: Path, tmp_path: Path
) -> None:
    loaded = load_run(tiny_run)
    loaded.module.register_buffer("stray", torch.zeros(2))
    with pytest.raises(ConfigError, match="stray"):
        save_weights(loaded, tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_state_of_no_plain_type_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_run(tiny_run)
    monkeypatch.setattr(TinyTagger, "get_extra_state", lambda self: {1, 2}, raising=False)
    with pytest.raises(DataError, match=r"extra_state\.json can't: .*set is not JSON"):
        save_weights(loaded, tmp_path / "w")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def counting_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run whose module keeps something of its own in checkpoints."""

    def save(self: TinyTagger, checkpoint: dict[str, Any]) -> None:
        checkpoint["working_points"] = {"loose": 0.25}

    def load(self: TinyTagger, checkpoint: dict[str, Any]) -> None:
        self.working_points = checkpoint["working_points"]

    monkeypatch.setattr(TinyTagger, "on_save_checkpoint", save)
    monkeypatch.setattr(TinyTagger, "on_load_checkpoint", load)
    train(str(tmp_path))
    return tmp_path / "tiny"


def test_what_a_module_keeps_in_checkpoints_comes_along(counting_run: Path, tmp_path: Path) -> None:
    save_weights(load_run(counting_run), tmp_path / "w")
    assert from_pretrained(tmp_path / "w").module.working_points == {"loose": 0.25}
    state = read_weights(tmp_path / "w" / "weights.safetensors")
    expected = {"epoch", "global_step", "pytorch-lightning_version", "working_points", "state_dict"}
    assert state.keys() == expected


def test_a_folder_has_no_last_checkpoint(folder: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is the best checkpoint alone"):
        load_run(folder, "last")
