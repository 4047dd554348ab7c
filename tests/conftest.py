"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of small real data files: HEPATTN_TEST_DATA, or shared/data beside the project."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("HEPATTN_TEST_DATA", beside))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set HEPATTN_TEST_DATA to its folder")
    return path


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
