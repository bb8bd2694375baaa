"""docs/faults.md names tests that are there, and leaves none of them out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", (ROOT / "docs" / "faults.md").read_text(), flags=re.MULTILINE)
TESTS = {
    node.name
    for path in (ROOT / "tests" / "faults").glob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


def prefixes_of(cell: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", cell)


def test_there_are_25_rows() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 26))


def test_each_row_names_tests_that_are_there() -> None:
    for number, cell in ROWS:
        assert prefixes_of(cell), number
        for prefix in prefixes_of(cell):
            assert any(name.startswith(prefix) for name in TESTS), (number, prefix)


def test_no_test_of_a_fault_is_left_out() -> None:
    named = tuple(prefix for _, cell in ROWS for prefix in prefixes_of(cell))
    assert {name for name in TESTS if not name.startswith(named)} == set()
