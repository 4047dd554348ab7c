"""Warnings of the libraries that a tiny training cannot avoid, and a folder of its own."""

from pathlib import Path

import pytest

EXPECTED = (
    "ignore:.*does not have many workers",
    "ignore:.*isinstance\\(treespec, LeafSpec\\):FutureWarning",  # Lightning with torch 2.13
    "ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning",  # Comet leaves one open
    "ignore:The number of training batches:UserWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in EXPECTED:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
