"""What the code imports is what pyproject.toml declares, and what needs an extra says so where it is missing."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from data.errors import UsageError
from data.extras import EXTRAS, require_extra
from deployments import supervision
from deployments.serve import serve
from models.config import JudgeConfig
from tasks.policies.asked_model import check_asked
from tasks.policies.shipped import BASES, POLICY

ROOT = Path(__file__).parents[2]
OWN = ("data", "models", "tasks", "flows", "deployments")
ENGINE = ("cpu", "gpu")  # of which one is always installed
# The files that import what only an extra brings.
WITH_EXTRA = {
    ("gradio", "deployments/chat_page.py"),
    ("openai", "deployments/chat_page.py"),
    ("openai", "models/asking/endpoint.py"),
    ("supervisor", "deployments/supervision.py"),
}


@cache
def imported() -> frozenset[tuple[str, str]]:
    return frozenset(imports())


known = cache(packages_distributions)


def imports() -> Iterator[tuple[str, str]]:
    """Every module that is imported from outside, by its first name, and the file."""
    for file in (file for package in OWN for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            for first in (name.split(".")[0] for name in names):
                # Parts of a program of the sandbox find each other as files of one folder.
                beside = file.parent.name == "sandbox" and (file.parent / f"{first}.py").exists()
                if first not in sys.stdlib_module_names and first not in OWN and not beside:
                    yield first, str(file.relative_to(ROOT))


def plain(requirement: str) -> str:
    """The name of a requirement as package indexes compare it."""
    name = re.match(r"[\w.-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def declared() -> dict[str, set[str]]:
    """The packages of each extra, and under "" those that every machine needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {plain(requirement) for requirement in told[extra]} for extra in told}


def explained() -> set[str]:
    """The packages of lines of pyproject.toml that end in a comment."""
    lines = re.findall(r'^(?:\w+ = \[)?\s*"([^"]+)"(?:,|\])\s*# \w+', (ROOT / "pyproject.toml").read_text(), re.M)
    return {plain(line) for line in lines}


def test_every_package_that_is_imported_is_declared() -> None:
    told = declared()
    everywhere = told[""].union(*(told[extra] for extra in ENGINE))
    undeclared = {}
    for module, file in imported():
        allowed = told[EXTRAS[module]] if (module, file) in WITH_EXTRA else everywhere
        if not allowed & {plain(name) for name in known().get(module, [])}:
            undeclared[module] = file
    assert undeclared == {}


def test_every_package_that_is_declared_is_imported_or_says_what_it_is_for() -> None:
    told = declared()
    used = {plain(name) for module, _ in imported() for name in known().get(module, [])}
    needed = told[""].union(*(told[extra] for extra in EXTRAS.values()))
    assert needed - used - explained() == set()


def test_the_lock_has_every_extra() -> None:
    locked = re.findall(r"--extra (\w+)", (ROOT / "scripts" / "lock.sh").read_text())
    assert set(locked) == declared().keys() - {""}


@pytest.fixture
def hidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that is as if not installed."""
    monkeypatch.setitem(sys.modules, request.param, None)
    return str(request.param)


@pytest.mark.parametrize("hidden", EXTRAS, indirect=True)
def test_a_missing_extra_is_named(hidden: str) -> None:
    with pytest.raises(UsageError, match=rf"^This needs the package {hidden}, .*'autodidact\[{EXTRAS[hidden]}\]'"):
        require_extra(hidden, "This")


@pytest.mark.parametrize("hidden", ["supervisor"], indirect=True)
def test_services_are_refused_without_supervisord(hidden: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"autodidact\[services\]"):
        supervision.connect(tmp_path)


@pytest.mark.parametrize("hidden", ["psycopg2"], indirect=True)
def test_postgresql_is_refused_without_its_driver(hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTODIDACT_DATABASE", "postgresql://me:mine@host:5432")
    with pytest.raises(UsageError, match=r"autodidact\[postgres\]"):
        supervision._databases(tmp_path)


@pytest.mark.parametrize("hidden", ["gradio"], indirect=True)
def test_the_page_is_refused_without_gradio_before_anything_starts(hidden: str) -> None:
    with pytest.raises(UsageError, match=r"--ui needs .*autodidact\[ui\]"):
        serve([str(BASES / "half-bare" / POLICY), "--ui"])


@pytest.mark.parametrize("hidden", ["openai"], indirect=True)
def test_an_endpoint_is_refused_without_its_client(hidden: str) -> None:
    with pytest.raises(UsageError, match=r"autodidact\[endpoint\]"):
        check_asked(JudgeConfig(model="judge", endpoint="http://127.0.0.1:8000/v1"), "judge")
