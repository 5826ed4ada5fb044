"""The pages for people: every link leads somewhere, every command is one, every file that is shown can be read."""

import ast
import importlib
import json
import logging
import re
import shlex
import tomllib
from importlib.util import find_spec
from itertools import dropwhile, groupby
from pathlib import Path
from shutil import copytree

import pytest
import yaml
from markdown.extensions.toc import slugify
from mkdocs.commands.build import build
from mkdocs.config import load_config
from pydantic import ValidationError

from data.formats import FORMATS
from flows.commands import datasets
from flows.commands.cli import COMMANDS
from flows.commands.config_file import read_config
from flows.commands.flow_table import all_flows, find_flow
from flows.commands.parser import parser_of
from flows.commands.settings import read_settings

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / f for f in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
COMPUTED = re.compile(r'"\$\([^)]*\)"')
SET = re.compile(r"export$|\w+=")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PACKAGES = ("data", "models", "tasks", "flows", "deployments")
KINDS = {"console", "yaml", "python", "json", "toml", "text", "math"}
# Programs of others, whose words are not checked further.
OTHERS = {"cd", "createdb", "curl", "git", "mv", "mkdocs", "prefect", "rsync", "source", "sqlite3", "ssh"}
EXAMPLES = {"MODEL": "runs/sft/best/policy", "DATA": "problems.jsonl", "RUN": "demo", "FILE": "problems.jsonl"}


def blocks(kind: str) -> list[tuple[str, str]]:
    return [
        (f"{page.name}: {text.strip().splitlines()[0]}", text)
        for page in PAGES
        for _, found, text in BLOCK.findall(page.read_text())
        if found == kind
    ]


def commands() -> list[list[str]]:
    """Every command of every `console` block, as words; what is set before it is left out."""
    lines = (line for _, text in blocks("console") for line in text.splitlines())
    told = [shlex.split(COMPUTED.sub("VALUE", line), comments=True) for line in lines]
    apart = [list(words) for line in told for end, words in groupby(line, ("&&", ";").__contains__) if not end]
    return [found for words in apart if (found := list(dropwhile(SET.match, words)))]


def test_a_block_says_what_it_is() -> None:
    found = {kind for page in PAGES for _, kind, _ in BLOCK.findall(page.read_text())}
    assert found <= KINDS, "the others are looked at by no test"


def test_pages_are_built_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    config.plugins.on_startup(command="build", dirty=False)
    with caplog.at_level(logging.WARNING, "mkdocs"):
        build(config)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("mkdocs")] == []
    for flow in all_flows():
        page = (tmp_path / "site" / "reference" / f"{flow}.html").read_text()
        assert "train.learning_rate" in page
    assert "<math" in (tmp_path / "site" / "algorithms.html").read_text()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deployments/README.md"])
def test_links_of_pages_that_are_read_in_the_repository(name: str) -> None:
    page = ROOT / name
    for link in LINK.findall(page.read_text()):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.is_file(), link
            if anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
                assert anchor in [slugify(heading, "-") for heading in headings], link


def test_the_readme_can_be_read_at_one_sitting() -> None:
    assert 5_000 < len((ROOT / "README.md").read_bytes()) < 9_000


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_can_be_given_as_they_are_printed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *rest = [EXAMPLES.get(word, word) for word in words]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert next(word for word in rest if "=" not in word) in targets
    elif program == "python":
        assert rest[0] == "-m" and find_spec(rest[1])
    elif program == "autodidact":
        _can_be_parsed(rest)
    else:
        assert program in OTHERS


def _can_be_parsed(arguments: list[str]) -> None:
    name, *rest = arguments
    if name.startswith("-"):
        assert name in ("--help", "--version")
    elif flow := find_flow(name):
        read_settings(flow.load().settings, rest, f"autodidact {name}", flow=name)
    elif name == "data":
        command, source, *flags = rest
        first = "data" if command == "inspect" else "problems"
        read_settings(datasets.SETTINGS[command], [f"--{first}", source, *flags], "autodidact data", of_a_loop=False)
    else:
        module, function, _ = COMMANDS[name]
        parser_of(getattr(importlib.import_module(module), function)).parse_args(rest)


@pytest.mark.parametrize(("where", "text"), blocks("yaml"), ids=lambda value: value[:40])
def test_settings_are_those_of_a_flow(where: str, text: str, tmp_path: Path) -> None:
    folder = Path(copytree(ROOT / "configs", tmp_path / "configs"))  # it may extend a file there
    (folder / "shown.yaml").write_text(text)
    settings = read_config(folder / "shown.yaml").settings
    refused = []
    for flow in all_flows().values():
        try:
            flow.load().settings.model_validate(settings)
            return
        except ValidationError as error:
            refused.append(str(error))
    pytest.fail("\n".join(refused))


@pytest.mark.parametrize(("where", "text"), blocks("python"), ids=lambda value: value[:40])
def test_code_runs(where: str, text: str) -> None:
    exec(compile(ast.parse(text), where, "exec"), {"__name__": "page"})


@pytest.mark.parametrize(("where", "text"), [*blocks("json"), *blocks("toml")], ids=lambda value: value[:40])
def test_other_files_can_be_read(where: str, text: str) -> None:
    assert json.loads(text) if text.startswith("{") else tomllib.loads(text)


def test_every_error_is_explained_and_no_other() -> None:
    sources = "\n".join(file.read_text() for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    parents = dict(re.findall(r"^class (\w+)\((\w+)", sources, re.MULTILINE))

    def is_ours(name: str | None) -> bool:
        return name is not None and (name == "AutodidactError" or is_ours(parents.get(name)))

    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    explained = set(re.findall(r"`(\w+Error)`", page))
    assert explained == {name for name in parents if is_ours(name)}


def test_every_format_and_every_configuration_is_named() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    assert [known.name for known in FORMATS if f"`{known.name}`" not in page] == []
    page = (ROOT / "docs" / "configuration.md").read_text()
    shown = [file.name for file in (ROOT / "configs").glob("*.yaml") if file.name != "tiny.yaml"]
    assert [name for name in shown if f"configs/{name}" not in page] == []


def test_the_forge_files_are_read_as_yaml() -> None:
    for file in [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff"]:
        assert isinstance(yaml.safe_load(file.read_text()), dict)
