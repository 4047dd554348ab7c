"""A tiny run that all tests of the room share."""

from pathlib import Path

import pytest

from deploy.tiny import train

EXPECTED = (
    "ignore:.*does not have many workers",
    "ignore:.*isinstance\\(treespec, LeafSpec\\):FutureWarning",  # Lightning with torch 2.13
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in EXPECTED:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run, which tests only read."""
    root = tmp_path_factory.mktemp("runs")
    train(str(root))
    return root / "tiny"
