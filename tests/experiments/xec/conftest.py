"""A few simulated events that all tests of the detector's networks share."""

import pytest

from hepattn.data.xec import XecBatch, open_xec
from hepattn.simulate.xec import XecConfig, simulate_xec


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> XecBatch:
    """Three events with dead sensors and sensors without times; tests only read them."""
    folder = tmp_path_factory.mktemp("xec_events")
    files = simulate_xec(folder, 3, XecConfig(run_size=2), progress=False)
    return open_xec(files).read(0, 3)
