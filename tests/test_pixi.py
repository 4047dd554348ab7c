"""pixi.toml is valid and repeats nothing that pyproject.toml or the Makefile say."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[1]
TASKS = {"demo", "test", "slow", "lint", "bench", "docs"}


@pytest.fixture
def manifest() -> dict:
    return tomllib.loads((ROOT / "pixi.toml").read_text())


@pytest.mark.data
def test_manifest_fits_the_published_schema(manifest: dict, data_dir: Path) -> None:
    schema = json.loads((data_dir / "pixi" / "schema.json").read_text())
    jsonschema.validate(manifest, schema)


def test_both_routes_have_the_same_tasks(manifest: dict) -> None:
    targets = re.findall(r"^(\w+): \$\(READY\)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(manifest["tasks"]) == TASKS
    assert set(targets) == TASKS | {"setup"}


def test_environments_are_default_cpu_and_gpu(manifest: dict) -> None:
    assert set(manifest["environments"]) == {"default", "cpu", "gpu"}


def test_extras_named_in_the_manifest_exist(manifest: dict) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for feature in manifest["feature"].values():
        extras = feature["pypi-dependencies"]["hepattn"]["extras"]
        assert set(extras) <= set(project["optional-dependencies"])
        assert not set(feature["pypi-dependencies"]) - {"hepattn", "torch"}


def test_makefile_and_manifest_pin_the_same_torch(manifest: dict) -> None:
    pin = re.search(r"^TORCH := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert manifest["feature"]["cpu"]["pypi-dependencies"]["torch"]["version"] == f"=={pin[1]}"
