"""The arrows between the tree's rooms run one way, and the page on it draws every module."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.local.environment import CHECKOUT

# Each knows only of those after it; `network` and `catalogue` know of nobody.
ROOMS = [
    "deployments",
    "flows",
    "tasks",
    "tasks.reporting",
    "tasks.table",
    "tasks.declared",
    "tasks.orders",
    "tasks.esi",
]
GROUND = ["tasks.catalogue", "tasks.network", "tasks.allowed", "tasks.imports"]
MODULES = {
    ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("benchmarks", "deployments", "flows", "tasks", "tests")
    for path in Path(CHECKOUT, folder).rglob("*.py")
}


def find_room(module: str) -> str:
    """Return the room that a module is in: the longest name that begins its own."""
    return max((room for room in [*ROOMS, *GROUND] if f"{module}.".startswith(f"{room}.")), key=len, default="")


def find_imports(module: str) -> Iterator[str]:
    """Yield the modules of this project that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            yield from sorted(names & MODULES.keys())
        if isinstance(node, ast.Import):
            yield from sorted({alias.name for alias in node.names} & MODULES.keys())


@pytest.mark.parametrize("module", [module for module in MODULES if find_room(module)])
def test_arrows_run_one_way(module: str) -> None:
    """A module imports nothing of a room above its own."""
    room = find_room(module)
    allowed = set(GROUND) if room in GROUND else {*ROOMS[ROOMS.index(room) :], *GROUND}
    for imported in find_imports(module):
        target = find_room(imported)
        assert target in allowed, f"{module} imports {imported}"
        assert room not in GROUND or target == room, f"{module} imports {imported}"


def test_modules_import_in_no_circle() -> None:
    """No module imports itself by way of others."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for imported in find_imports(module):
                if imported != module:
                    visit(imported, [*path, module])
            done.add(module)

    for module in MODULES:
        visit(module, [])


def test_page_draws_every_module() -> None:
    """docs/architecture.md has each folder of flows and tasks, and in it each module by its name."""
    drawing = Path(CHECKOUT, "docs/architecture.md").read_text().split("```")[1]
    drawn = dict(re.findall(r"^([a-z/]+/) +(.*?)(?=^[a-z]|\Z)", drawing, re.MULTILINE | re.DOTALL))
    for module, path in MODULES.items():
        folder = f"{path.parent.relative_to(CHECKOUT)}/"
        if path.name != "__init__.py" and (folder in drawn or module.startswith(("flows.", "tasks."))):
            assert re.search(rf"\b{path.stem}\b", drawn[folder]) or f"{folder}{path.name}" in drawing, module


def test_product_does_without_tests_and_benchmarks() -> None:
    """Nothing that runs imports what measures or tests it."""
    for module in MODULES:
        if find_room(module):
            for imported in find_imports(module):
                assert not imported.startswith(("benchmarks", "tests")), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("tests.")])
def test_tests_share_only_what_is_in_support(module: str) -> None:
    """No test imports another test or a conftest, and only the benchmarks' own tests import benchmarks."""
    for imported in find_imports(module):
        assert not re.match(r"tests\.(.*\.)?(test_\w+|conftest)$", imported), f"{module} imports {imported}"
        assert not imported.startswith("benchmarks") or module.startswith("tests.benchmarks."), module
