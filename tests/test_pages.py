"""The pages that a reader follows from top to bottom: every command runs, in order."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import hepattn

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def follow(page: Path, folder: Path, python: Path) -> str:
    """Run all bash blocks of a page as one script that stops at the first failure."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    commands = folder / "bin"
    commands.mkdir()
    for name, target in {"python": "", "hepattn": "-m hepattn.cli "}.items():
        (commands / name).write_text(f'#!/bin/bash\nexec {python} {target}"$@"\n')
        (commands / name).chmod(0o755)
    work = folder / "work"
    work.mkdir()
    library = str(Path(hepattn.__file__).parents[1])
    script = "".join(blocks).replace("HEPATTN/", f"{ROOT}/")
    # the package is found by its path here, where a reader has it installed
    script = script.replace('PYTHONPATH="$PWD"', f'PYTHONPATH="$PWD:{library}"')
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=work,
        env={
            **os.environ,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": library,
            "HEPATTN_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def files_in(table: str) -> list[str]:
    """Names in the first column of the tables of a page."""
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


@pytest.mark.slow
def test_the_tutorial_runs_and_shows_what_it_says(tmp_path: Path, python: Path) -> None:
    page = DOCS / "tutorial.md"
    output = follow(page, tmp_path, python)
    run = tmp_path / "work" / "runs" / "hit_filter"
    names = files_in(page.read_text())
    assert "config.yaml" in names
    assert all((run / name).exists() for name in names)
    plots = re.findall(r"`(\w+\.png)`", page.read_text())
    assert len(plots) == 4
    assert all((run / "eval" / "test" / name).is_file() for name in plots)
    for shown in ("hit efficiency", "hit purity", "particles retained", "hit_efficiency"):
        assert shown in output
    for shown in ("'hit_id':", "'keep':", "worst difference", "('valid', ['events', 'tokens'])"):
        assert shown in output
    assert (run / "deploy" / "model.json").is_file()


@pytest.mark.slow
def test_an_experiment_outside_of_the_package_does_what_its_page_says(
    tmp_path: Path, python: Path
) -> None:
    output = follow(DOCS / "own_experiment.md", tmp_path, python)
    run = tmp_path / "work" / "runs" / "my_experiment"
    for name in (
        "split.json",
        "ckpts/best.ckpt",
        "eval/test/metrics.json",
        "eval/test/predictions.parquet",
        "eval/predict/predictions.parquet",
        "deploy/model.onnx",
        "eval/attention_maps/layers.json",
    ):
        assert (run / name).is_file(), name
    assert "2 passed" in output
    figures = json.loads((run / "eval" / "test" / "metrics.json").read_text())
    assert figures["charge"] > 0.99
    assert figures["error"] < 0.05


def test_the_page_shows_the_files_themselves() -> None:
    page = (DOCS / "own_experiment.md").read_text()
    shown = re.findall(r'^--8<-- "(.*)"$', page, re.MULTILINE)
    folder = DOCS / "own_experiment"
    assert {ROOT / name for name in shown} == set(folder.glob("*.*"))
