"""Small events in the TrackML format."""

from pathlib import Path

import pytest

from data.make_trackml import make_events


@pytest.fixture(scope="session")
def raw_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two events with cells and modules; not to be written to."""
    return make_events(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def one_event(tmp_path: Path) -> Path:
    """A folder of one uncompressed event, to be damaged."""
    return make_events(tmp_path / "one", numbers=[7], suffix=".csv")
