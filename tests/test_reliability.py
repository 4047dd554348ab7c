"""Every row of the table of faults has tests, and they are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"


def rows() -> list[str]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("|---", "| fault", "| load"))]


def test_every_fault_has_tests_that_exist() -> None:
    assert len(rows()) > 20
    for row in rows():
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, f"no test shows: {row}"
        for file, name in named:
            tree = ast.parse((ROOT / "tests" / file).read_text())
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"{file} has no {name}"
