"""The rooms of `ites/`: an import goes down the floors, never up and never in a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ites

PACKAGE = Path(ites.__file__).parent
FLOORS = (
    ("errors",),
    ("pose", "system"),
    ("ops", "data"),
    ("models",),
    ("runs",),
    ("released", "inference", "evaluation", "show", "export"),
    ("training",),
    ("workflows",),
    ("cli",),
)
"""The rooms from the ground up. A room imports from lower floors, and on its own floor from a room
that does not import from it."""

LOOSE = {"__init__", "__main__", "errors"}
OUTSIDE = {"kernels", "_C", "_C_cuda"}
"""Not in `ites/` of the source tree: the Triton kernels and the compiled modules."""


def modules() -> dict[str, Path]:
    """Each module of `ites/` by its name after `ites.`; a package by its own name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not parts or parts[0] not in OUTSIDE:
            found[".".join(parts)] = path
    return found


MODULES = modules()


def imported(name: str) -> Iterator[tuple[str, int]]:
    """Each import of `ites` in a module, in its functions too: module after `ites.`, and line."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(whole if whole.removeprefix("ites.") in MODULES else node.module or "")
        for module in dict.fromkeys(found):
            if module.split(".")[0] == "ites":
                yield module.removeprefix("ites").lstrip("."), node.lineno


def room(module: str) -> str:
    return module.split(".")[0]


FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def test_no_module_lies_loose() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - OUTSIDE
    assert rooms <= set(FLOOR), f"rooms without a floor: {sorted(rooms - set(FLOOR))}"
    for name in rooms:
        tree = ast.parse((PACKAGE / name / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"ites/{name}/__init__.py does not say what is in it"


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in FLOOR])
def test_an_import_goes_down(name: str) -> None:
    upward = [
        f"line {line}: {module}"
        for module, line in imported(name)
        if room(module) in FLOOR and FLOOR[room(module)] > FLOOR[room(name)]
    ]
    assert not upward, f"ites.{name} imports upward: {'; '.join(upward)}"


def circles(graph: dict[str, set[str]]) -> list[str]:
    """A walk along each circle of a graph."""
    found, done = [], set()

    def walk(node: str, path: list[str]) -> None:
        if node in path:
            found.append(" -> ".join([*path[path.index(node) :], node]))
        elif node not in done:
            for target in sorted(graph.get(node, ())):
                walk(target, [*path, node])
            done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return found


def test_no_circle_of_modules() -> None:
    graph = {
        name: {module for module, _ in imported(name) if module and module != name}
        for name in MODULES
        if name
    }
    assert not circles(graph)


def test_no_circle_of_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for name in MODULES:
        targets = {room(module) for module, _ in imported(name)} & set(FLOOR)
        graph.setdefault(room(name), set()).update(targets - {room(name)})
    graph.pop("", None)
    assert not circles(graph)


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a -> b -> c -> a"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_contributing_shows_the_same_floors() -> None:
    guide = PACKAGE.parent / "CONTRIBUTING.md"
    if not guide.is_file():
        pytest.skip("an installed package has no CONTRIBUTING.md")
    picture = re.search(r"```floors\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    assert picture, "CONTRIBUTING.md has no block ```floors"
    drawn = [line.split("|")[1].split() for line in picture[1].splitlines() if "|" in line]
    assert tuple(map(tuple, reversed(drawn))) == FLOORS


def test_import_ites_brings_little_beyond_torch() -> None:
    """Counted, not timed: what `import ites` loads by itself, and all public names beyond torch."""
    code = (
        "import sys; before = set(sys.modules); import ites; "
        "print(sorted(set(sys.modules) - before)); "
        "import torch, numpy; before = set(sys.modules); "
        "[getattr(ites, name) for name in ites.__all__]; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    alone, beyond = map(ast.literal_eval, result.stdout.splitlines())
    assert [name for name in alone if name.startswith("ites")] == ["ites"]
    assert len(alone) < 20, alone
    slow = {"triton", "scipy", "matplotlib", "plotly", "tensorboard", "typer", "PIL", "pandas"}
    assert not slow & set(beyond)
