"""How the house is built, where import contracts (pyproject.toml) do not tell: rooms, and how long calls may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_ARGUMENTS = 5
STAGES = ("Result", "Reference", "dict[str, Artifact]", "dict[str, Result]")  # what a function returns that is a stage


def functions(folder: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.name}", node


def arguments(function: ast.FunctionDef) -> list[ast.arg]:
    told = function.args
    return [a for a in (*told.posonlyargs, *told.args, *told.kwonlyargs) if a.arg not in ("self", "cls")]


def test_tasks_has_rooms_and_nothing_beside_them() -> None:
    assert [file.name for file in (ROOT / "tasks").glob("*.py")] == ["__init__.py"]
    for room in (path for path in (ROOT / "tasks").iterdir() if path.is_dir() and path.name != "__pycache__"):
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), f"{room.name} does not say what it is"


def test_a_stage_takes_no_more_arguments_than_one_can_hold_in_mind() -> None:
    found = {}
    for name, function in functions("tasks"):
        told = arguments(function)
        first = ast.unparse(told[0].annotation) if told and told[0].annotation else ""
        returned = ast.unparse(function.returns) if function.returns else ""
        if first in ("Place", "Run") and returned in STAGES and not function.name.startswith("_"):
            found[name] = [argument.arg for argument in told]
    assert len(found) > 15
    assert {name: told for name, told in found.items() if len(told) > MOST_ARGUMENTS} == {}


def test_what_flows_call_takes_no_more_either() -> None:
    calls = [
        (file.name, call.lineno, len(call.args) + len(call.keywords))
        for file in (ROOT / "flows").glob("*.py")
        for function in ast.parse(file.read_text()).body
        if isinstance(function, ast.FunctionDef) and function.name == "loop"
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
    ]
    assert len(calls) > 60
    assert [call for call in calls if call[-1] > MOST_ARGUMENTS] == []
