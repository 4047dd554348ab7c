"""A cache of simulated events that all tests of the experiments share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

EXPECTED = ("ignore:.*does not have many workers",)  # tiny data needs none


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in EXPECTED:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def simulated_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh cache folder, so that tests neither need nor touch the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEPATTN_CACHE", str(folder))
        yield folder
