"""An exported run answers as its network does, for batches of any size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from deploy.tiny import FEATURES, TinyTagger
from hepattn.deploy.export import _write_onnx, main
from hepattn.training.configs import ConfigError
from hepattn.training.load import load_run

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra deploy")
pytest.importorskip("onnxscript", reason="needs the extra deploy")


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    main([str(tiny_run), "--output", str(path)])
    return path


def draw(B: int, N: int) -> dict[str, Tensor]:
    lengths = torch.arange(B).remainder(N) + 1
    valid = torch.arange(N) < lengths[:, None]
    return {"x": 9 * torch.randn(B, N, 2), "vectors": torch.rand(B, N, 4), "valid": valid}


@pytest.mark.parametrize(("B", "N"), [(1, 4), (7, 31)])
def test_an_exported_run_answers_raw_columns_of_any_size(
    exported: Path, tiny_run: Path, B: int, N: int
) -> None:
    inputs = draw(B, N)
    session = onnxruntime.InferenceSession(exported)
    (found,) = session.run(["output"], {name: x.numpy() for name, x in inputs.items()})
    expected = load_run(tiny_run).module.net(**inputs).detach()
    assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


def test_a_description_lies_beside_the_export(exported: Path) -> None:
    content = json.loads(exported.with_suffix(".json").read_text())
    assert [entry["name"] for entry in content["inputs"]] == ["x", "vectors", "valid"]
    assert content["inputs"][0]["shape"] == ["events", "tokens", 2]
    assert [entry["name"] for entry in content["features"]] == [f.name for f in FEATURES]
    assert content["features"][1]["clip"] == [-5.0, 5.0]
    assert content["classes"] == ["QCD", "Hbb", "Hcc"]
    assert 0 <= content["worst_relative_difference"] < 1e-5
    assert content["compared_batches"][:3] == [[3, 9], [1, 9], [3, 4]]


def test_another_answer_leaves_no_file(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    class Session:
        def get_inputs(self) -> list:
            return []

        def run(self, *_: object) -> list[np.ndarray]:
            return [np.full((3, 3), np.nan, np.float32)]

    def write(net: object, inputs: object, path: Path) -> Session:
        path.touch()
        return Session()

    monkeypatch.setattr("hepattn.deploy.export._write_onnx", write)
    assert_fails(capsys, "answers otherwise", tiny_run, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def assert_fails(
    capsys: pytest.CaptureFixture, message: str, run: Path, output: Path, *options: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(run), "--output", str(output), *options])
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 1
    assert line.startswith("error:")
    assert message in line


def test_a_network_that_fixes_the_number_of_events_is_refused(tmp_path: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.arange(int(x.shape[0])).view(-1, 1).expand(3, 1)

    with pytest.raises(ConfigError, match=r"inputs x of shape \[3, .* only"):
        _write_onnx(Fixed(), (torch.randn(3, 5),), tmp_path / "model.onnx")


def test_nothing_is_overwritten(
    exported: Path, tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert_fails(capsys, "exists; choose another --output", tiny_run, exported)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_batches", "0"], "num_batches=0"),
        (["--data.batch_siz", "2"], "did you mean 'batch_size'?"),
        (["--checkpoint", "nothing.ckpt"], "there is no such file"),
    ],
)
def test_bad_options_are_named(
    options: list[str],
    message: str,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    assert_fails(capsys, message, tiny_run, tmp_path / "model.onnx", *options)


def test_a_module_must_say_how_its_network_is_called(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.delattr(TinyTagger, "network_inputs")
    assert_fails(capsys, "must define network_inputs", tiny_run, tmp_path / "model.onnx")
