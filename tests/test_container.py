"""What can be said of the container recipe without building it."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in re.sub(r"\\\n\s*", " ", RECIPE).splitlines()
    if line and not line.startswith("#")
]


def given(name: str) -> list[str]:
    return [value for instruction, value in INSTRUCTIONS if instruction == name]


@pytest.fixture
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def copied() -> list[str]:
    return [source for line in given("COPY") for source in line.split()[:-1]]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert set(copied()) == kept
    assert all((ROOT / source).exists() for source in copied())


def test_all_that_the_build_reads_is_copied() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = tables["tool"]["hatch"]["build"]["targets"]["wheel"]
    read = {tables["project"]["readme"], *tables["project"]["license-files"]}
    read |= {*wheel["packages"], *wheel["force-include"]}
    assert {Path(path).parts[0] for path in read} <= set(copied())


def test_versions_are_those_of_the_project(project: dict) -> None:
    arguments = dict(line.split("=", 1) for line in given("ARG"))
    makefile = dict(re.findall(r"^(\w+) := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert arguments["TORCH"] == makefile["TORCH"]
    assert arguments["WHEELS"] == makefile["CPU_WHEELS"]
    assert set(arguments["EXTRAS"].split(",")) <= set(project["optional-dependencies"])
    (image,) = given("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]


def test_the_command_is_the_projects_and_its_user_not_root(project: dict) -> None:
    assert given("ENTRYPOINT") == ['["hepattn"]']
    assert "hepattn" in project["scripts"]
    names = [instruction for instruction, _ in INSTRUCTIONS]
    assert given("USER") == ["hepattn"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")


def test_only_the_sources_reach_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line.startswith("**/")]
    assert any(fnmatch("src/hepattn/__pycache__", pattern) for pattern in patterns)
