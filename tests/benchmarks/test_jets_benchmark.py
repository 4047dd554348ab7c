"""The benchmark of jet networks runs at a tiny size and compares equal outputs."""

import json
from pathlib import Path
from runpy import run_path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.filterwarnings("ignore")  # of the peer
def test_networks_agree_with_weaver_and_are_compared_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("weaver")
    monkeypatch.syspath_prepend(FOLDER)
    benchmark = run_path(str(FOLDER / "jets.py"))
    tiny = ["--repeats", "1", "--threads", "1", "--jets", "2", "--particles", "20"]
    benchmark["main"]([*tiny, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "jets.json").read_text())
    assert max(result["largest_difference"].values()) < 1e-4
    assert {goal["reached"] for goal in result["goals"]} <= {True, False, None}
    assert (tmp_path / "jets.png").stat().st_size > 0
    assert "weaver" in capsys.readouterr().out
