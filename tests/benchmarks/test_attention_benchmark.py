"""The attention benchmark runs and leaves its results behind."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "attention.py"


def test_attention_benchmark_writes_figures_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("attention_benchmark", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    sizes = ["--tokens", "256", "512", "--memory-tokens", "2048", "--window", "32", "--heads", "2"]
    benchmark.main([*sizes, "--repeats", "1", "--threads", "1", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "attention.json").read_text())
    peers = {"local", "dense mask", "no mask", "local-attention"}
    assert set(result["seconds"]["forward"]["512"]) == peers
    assert max(result["largest_error"].values()) < 1e-5
    assert (tmp_path / "attention.png").stat().st_size > 0
    assert "× dense mask" in capsys.readouterr().out
