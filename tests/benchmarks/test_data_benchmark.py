"""The benchmark of reading runs at tiny sizes and compares with the peer's numbers."""

import json
from pathlib import Path
from runpy import run_path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ["--repeats", "1", "--threads", "1", "--jets", "300", "--memory-jets", "300"]
SIZES = ["--batch", "64", "--chunk", "100", "--buffer", "128"]


@pytest.mark.filterwarnings("ignore")  # of the peer
def test_reading_agrees_with_weaver_and_is_compared_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("weaver")
    monkeypatch.syspath_prepend(FOLDER)
    # Not by name: the folder of the tests of data has the same.
    benchmark = run_path(str(FOLDER / "data.py"))

    def measure_here(_: str, flags: list[str]) -> dict[str, float]:
        return benchmark["measure_memory"](Path(flags[1]), benchmark["parse"](flags))

    # A fresh process takes longer.
    monkeypatch.setattr(benchmark["measure"], "in_fresh_process", measure_here)
    benchmark["main"]([*TINY, *SIZES, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "data.json").read_text())
    assert set(result["seconds"]) == {"hepattn", "hepattn 128", "weaver"}
    assert max(result["largest_difference"].values()) < 1e-4
    assert result["memory"]["jets"] == 300
    assert [goal["reached"] for goal in result["goals"]][1] is None  # too small to tell
    assert (tmp_path / "data.png").stat().st_size > 0
    assert "× weaver" in capsys.readouterr().out
