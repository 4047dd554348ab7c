"""An exported run answers as its network does, for batches of any size."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from deploy.tiny import FEATURES, TinyTagger
from deploy.tiny_events import TinyClassifier, TinyEvents
from hepattn.deploy.export import Export, Exported, _write_onnx, export, main
from hepattn.deploy.export_cases import paddings
from hepattn.training.configs import ConfigError
from hepattn.training.load import LoadedRun, load_run

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

    def write(net: object, inputs: object, names: object, path: Path, _: int) -> Session:
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
        _write_onnx(Exported(Fixed()), (torch.randn(3, 5),), ["x"], tmp_path / "model.onnx")


def test_nothing_is_overwritten(
    exported: Path, tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert_fails(capsys, "exists; choose another --output", tiny_run, exported)


def test_several_runs_are_exported_one_after_the_other(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def write(loaded: LoadedRun, path: Path, *_: object) -> Export:
        assert path == loaded.folder / "deploy" / "model.onnx"
        return Export(path, path, {"a": 1e-6, "b": 2e-5}[loaded.folder.name], [(2, 3)], ["all"])

    monkeypatch.setattr("hepattn.deploy.export.export", write)
    runs = [shutil.copytree(tiny_run, tmp_path / name) for name in "ab"]
    main([str(run) for run in runs])
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in lines if "worst" in line] == ["1e-06", "2e-05"]
    assert [line for line in lines if line.endswith("best.ckpt")] == [
        f"{r}, best.ckpt" for r in runs
    ]
    with pytest.raises(SystemExit):
        main([*map(str, runs), "--output", str(tmp_path / "model.onnx")])
    assert "is one file for 2 runs" in capsys.readouterr().err


def test_momenta_are_exported(tmp_path: Path) -> None:
    class Momentum(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return torch.hypot(x[..., 0], x[..., 1]), None

    inputs = (torch.randn(3, 5, 2),)
    session = _write_onnx(Exported(Momentum()), inputs, ["x"], tmp_path / "model.onnx")
    (found,) = session.run(None, {"x": inputs[0].numpy()})
    assert_close(torch.from_numpy(found), inputs[0].norm(dim=-1))


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


def make_events_run(num_classes: int) -> LoadedRun:
    data = TinyEvents(num_classes=num_classes, num_events=7, batch_size=4)
    module = TinyClassifier(num_classes).eval()
    scaling = module.net.scaling
    scaling.weight.copy_(torch.rand_like(scaling.weight))
    scaling.bias.copy_(torch.rand_like(scaling.bias))
    return LoadedRun(module, data, Path("run"), Path("best_calibrated.ckpt"))


@pytest.fixture
def events_run() -> LoadedRun:
    return make_events_run(2)


def test_events_are_exported_with_their_scaling_and_a_fixed_number_of_objects(
    tmp_path: Path,
) -> None:
    run = make_events_run(3)
    done = export(run, tmp_path / "model.onnx", num_batches=1, probabilities=True)
    assert done.difference < 1e-5
    data = TinyEvents(num_classes=3, num_events=9, batch_size=9)
    inputs = run.module.network_inputs(next(iter(data.test_dataloader())))
    session = onnxruntime.InferenceSession(done.path)
    arrays = dict(zip(run.module.input_names(), (x.numpy() for x in inputs), strict=True))
    used = [entry.name for entry in session.get_inputs()]
    (found,) = session.run(["probability"], {name: arrays[name] for name in used})
    expected = run.module.net(*inputs).detach().softmax(1)
    assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)

    content = json.loads(done.description.read_text())
    shapes = {entry["name"]: entry["shape"] for entry in content["inputs"]}
    assert shapes["jets"] == ["events", 3, 3]
    assert [feature["name"] for feature in content["features"]["jets"]] == ["pt", "eta", "btag"]
    full = ["as they are", "one event", "all slots real", "NaN in padding"]
    assert content["compared_cases"] == [*full, "no objects", "no jets", "no muons"]


def test_one_logit_is_exported_as_probabilities_of_two_classes(events_run: LoadedRun) -> None:
    inputs = events_run.module.network_inputs(next(iter(events_run.test_batches())))
    p = events_run.module.net(*inputs).sigmoid()
    assert_close(Exported(events_run.module.net, True)(*inputs), torch.cat([1 - p, p], 1))


def test_probabilities_of_something_else_are_refused(
    events_run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_run.data, "classes", ("a", "b", "c", "d"))
    with pytest.raises(ConfigError, match="one logit for each of the classes"):
        export(events_run, tmp_path / "model.onnx", probabilities=True)
    monkeypatch.delattr(events_run.data, "classes")
    with pytest.raises(ConfigError, match="names none"):
        export(events_run, tmp_path / "model.onnx", probabilities=True)


def test_a_module_must_name_all_inputs(
    events_run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(TinyClassifier, "input_names")
    with pytest.raises(ConfigError, match=r"define input_names\(\)"):
        export(events_run, tmp_path / "model.onnx")


def test_paddings_make_every_kind_full_and_empty(events_run: LoadedRun) -> None:
    inputs = events_run.module.network_inputs(next(iter(events_run.test_batches())))
    names = events_run.module.input_names()
    cases = {case.name: case.inputs for case in paddings([inputs], names)}
    full = cases["all slots real"]
    assert full[2].all()
    real = inputs[2]
    for kind, slots in ((3, slice(0, 3)), (4, slice(3, 5))):
        assert torch.equal(full[kind][real[:, slots]], inputs[kind][real[:, slots]])
        objects = inputs[kind][real[:, slots]]
        assert (full[kind].flatten(0, 1)[:, None] == objects).all(-1).any(-1).all()
    spoilt = cases["NaN in padding"]
    assert (spoilt[1].isnan().all(-1) == ~real).all()
    for kind, slots in ((3, slice(0, 3)), (4, slice(3, 5))):
        assert (spoilt[kind].isnan().all(-1) == ~real[:, slots]).all()
    assert not cases["no objects"][2].any()
    assert not cases["no jets"][2][:, :3].any()
    assert torch.equal(cases["no jets"][2][:, 3:], real[:, 3:])
