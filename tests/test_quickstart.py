"""The quickstart runs from top to bottom, commands and Python alike."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from hepattn import cli

PAGE = Path(__file__).parents[1] / "docs" / "quickstart.md"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
SHORT = [*QUIET, "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
SMALL = {"jets/tag": "200", "events/classify": "600"}


def blocks() -> Iterator[tuple[str, str]]:
    """Language and text of the blocks, in order."""
    yield from re.findall(r"```(bash|python)\n(.*?)```", PAGE.read_text(), re.DOTALL)


def run_command(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "hepattn"
    more = [*SHORT, "--data.num_simulated", SMALL[words[0]]] if words[0] in SMALL else []
    assert cli.main([*words, *more]) == 0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each Python block left behind."""
    names: dict[str, Any] = {}
    found = []
    folder = tmp_path_factory.mktemp("quickstart")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEPATTN_CACHE", str(folder / "cache"))
        for language, text in blocks():
            if language == "bash":
                for line in text.splitlines():
                    run_command(line)
            else:
                exec(compile(text, str(PAGE), "exec"), names)
                found.append(names | {"folder": folder})
    return found


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance\\(treespec, LeafSpec\\):FutureWarning"),
]


def test_there_is_a_block_for_each_promise() -> None:
    assert [language for language, _ in blocks()] == [
        "bash", "python", "bash", "python", "bash", "python", "python", "python",
    ]  # fmt: skip


def test_scores_are_probabilities(results: list[dict[str, Any]]) -> None:
    shapes = [np.asarray(names["scores"]).shape for names in results[:3]]
    assert shapes == [(3, 10), (300, 10), (2, 2)]
    for names in results[:3]:
        np.testing.assert_allclose(np.asarray(names["scores"]).sum(1), 1, atol=1e-5)


def test_the_command_line_writes_the_same_scores(results: list[dict[str, Any]]) -> None:
    (path,) = results[1]["folder"].glob("runs/pfn/eval/predict/predictions.parquet")
    table = pq.read_table(path)
    columns = [table[f"score_{name}"] for name in results[1]["loaded"].data.classes]
    np.testing.assert_allclose(np.stack(columns, 1), results[1]["scores"], atol=1e-5)


def test_a_network_tells_the_arrays_apart(results: list[dict[str, Any]]) -> None:
    for names in results[:3]:
        assert np.ptp(np.asarray(names["scores"]), axis=0).max() > 0


def test_padded_hits_stay_zero(results: list[dict[str, Any]]) -> None:
    names = results[-1]
    assert names["out"].shape == (2, 4, 1000, 16)
    assert names["tokens"].shape == (2, 1000, 32)
    assert not names["out"][1, :, 700:].any()
    assert not names["tokens"][1, 700:].any()
    assert torch.isfinite(names["tokens"]).all()
