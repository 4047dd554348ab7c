"""A small set of simulated events in two files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import uproot

from hepattn.simulate.xec import XecConfig, simulate_xec

CONFIG = XecConfig(run_size=4, shard_size=8)
NUM_EVENTS = 14


@pytest.fixture(scope="session")
def xec_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fourteen events of four runs in two files."""
    folder = tmp_path_factory.mktemp("xec")
    return list(simulate_xec(folder, NUM_EVENTS, CONFIG, progress=False))


@pytest.fixture
def rewrite(xec_files: list[Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes the first file again with other branches: values, or None to leave one out."""

    def write(name: str = "changed.root", **changes: object) -> Path:
        with uproot.open(xec_files[0]) as file:
            columns = {n: b.array(library="np") for n, b in file["tree"].items()}
        for branch, change in changes.items():
            if change is None:
                del columns[branch]
            else:
                columns[branch] = change(columns[branch].copy())
        path = tmp_path / name
        with uproot.recreate(path) as file:
            types = {n: np.dtype((c.dtype, c.shape[1:])) for n, c in columns.items()}
            file.mktree("tree", types).extend(columns)
        return path

    return write
