"""Feature lists by name and the table of several runs."""

import json
from pathlib import Path

import pytest

from hepattn.data.error import DataError
from hepattn.experiments.jets import summary
from hepattn.experiments.jets.feature_lists import feature_list
from hepattn.training.configs import ConfigError


def write_test(run: Path, accuracy: float, rejection: dict[str, float | None]) -> Path:
    folder = run / "eval" / "test"
    folder.mkdir(parents=True)
    figures = {
        "num_jets": 100,
        "accuracy": {"value": accuracy, "low": accuracy - 0.04, "high": accuracy + 0.02},
        "auc": accuracy + 0.01,
        "rejection": {name: {"value": value} for name, value in rejection.items()},
    }
    (folder / "metrics.json").write_text(json.dumps(figures))
    return run


def test_table_has_mean_and_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_test(tmp_path / "a", 0.8, {"top@0.5": 10.0, "top@0.3": None})
    write_test(tmp_path / "b", 0.9, {"top@0.5": 14.0})
    summary.main([str(tmp_path / "a"), str(tmp_path / "b")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[1]: line for line in lines if len(line) > 3}
    assert rows["a"][5:8] == ["0.8000", "±", "0.0300"]
    assert "0.8500" in rows["mean"]
    assert "0.8600" in rows["mean"]
    assert "12" in rows["mean"]
    assert "0.0707" in rows["standard"]
    assert "top@0.3" not in rows["run"]


def test_what_no_background_passes_has_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("a", None), ("b", 3.0)):
        write_test(tmp_path / name, 0.5, {"top@0.5": value})
    summary.main([str(tmp_path / "a"), str(tmp_path / "b")])
    mean = next(line for line in capsys.readouterr().out.splitlines() if "mean" in line)
    assert "–" in mean


def test_run_without_a_test_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        summary.main([str(tmp_path / "untested")])
    assert "untested holds no eval/test" in capsys.readouterr().err
    with pytest.raises(DataError):
        summary.newest_test(tmp_path)


@pytest.mark.parametrize(
    ("name", "num_features"), [("kin", 7), ("kinpid", 13), ("kinpidplus", 13), ("full", 17)]
)
def test_shipped_feature_lists_have_the_published_inputs(name: str, num_features: int) -> None:
    features = feature_list(name)
    assert len(features) == num_features
    assert [feature.name for feature in features[-2:]] == ["part_deta", "part_dphi"]


def test_feature_list_scales_as_published() -> None:
    error = next(f for f in feature_list("full") if f.name == "part_d0err")
    assert (error.shift, error.scale, error.clip) == (0.0, 1.0, (0, 1))
    pt = feature_list("kin")[0]
    assert (pt.name, pt.shift, pt.scale, pt.clip) == ("part_pt_log", 1.7, 0.7, (-5, 5))


def test_feature_list_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("- {name: part_deta}\n- {name: part_dphi, scale: 2.0}\n")
    assert [f.scale for f in feature_list(str(path))] == [1.0, 2.0]


def test_unknown_feature_list_is_named_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="no list or file 'kinn'; did you mean 'kin'"):
        feature_list("kinn")


def test_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("- {name: part_deta, shft: 2}\n")
    with pytest.raises(ConfigError, match=r"bad.yaml does not fit data.features"):
        feature_list(str(path))
