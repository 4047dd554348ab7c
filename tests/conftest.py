"""Fixtures that several rooms share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import warm_python


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of small real data files: HEPATTN_TEST_DATA, or shared/data beside the project."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("HEPATTN_TEST_DATA", beside))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set HEPATTN_TEST_DATA to its folder")
    return path


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An interpreter for tests that start processes: it spares them the seconds of imports."""
    with warm_python.warm_python(tmp_path_factory.mktemp("python")) as path:
        yield path


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
