"""The benchmark of the hypergraph VAE runs at a tiny size."""

import json
from pathlib import Path
from runpy import run_path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_networks_of_particles_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    benchmark = run_path(str(FOLDER / "hypervae.py"))
    tiny = ["--repeats", "1", "--threads", "1", "--jets", "6", "--out", str(tmp_path)]
    benchmark["main"](tiny)
    result = json.loads((tmp_path / "hypervae.json").read_text())
    assert set(result["seconds"]["training step"]) == {"slim", "full", "transformer"}
    assert {goal["reached"] for goal in result["goals"]} <= {True, False}
    assert result["jets_a_second"] > 0
    assert (tmp_path / "hypervae.png").stat().st_size > 0
    assert "transformer" in capsys.readouterr().out
