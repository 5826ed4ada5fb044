"""Every error that a user can act on has one base, says what to do next, and survives the way between processes."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.errors import BAD_INPUT, FAILED, AutodidactError, RunFailedError
from data.formats import RowError
from tasks.stage.contract import CorruptStageError
from tasks.stage.run import RunDirectoryError

ROOT = Path(__file__).parents[2]
ROOMS = ("data", "models", "tasks", "flows", "deployments")
FILES = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
TREES = {file.relative_to(ROOT): ast.parse(file.read_text()) for file in FILES}
# Programs in the sandbox import nothing of this project. The last two stay in their files: one stands for malformed
# JSON, which is a ValueError, one for a text that another reader gets.
APART = {
    *("CandidateError", "CannotError", "GoneError", "UnknownError", "NotDataError"),
    *("RepeatedKeyError", "_NotSimpleError"),
}
# One that makes its own sentences, and what is wrong with one row, reply or comparison: who counts those says more.
PARTS = {
    "CorruptStageError",
    "RowError",
    "ContentError",
    "LeftOutError",
    "ReplyError",
    "UnusableReplyError",
    "MathCheckError",
    "MathCheckTimeoutError",
}


def classes() -> dict[str, list[str]]:
    """The error classes of the project, with their bases."""
    found = {}
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                found[node.name] = [ast.unparse(base) for base in node.bases]
    return found


def test_every_error_class_derives_from_the_one_base() -> None:
    found = classes()
    assert len(found) > 30
    ours = {"AutodidactError"}
    while more := {name for name, bases in found.items() if ours & set(bases)} - ours:
        ours |= more
    assert set(found) - ours == APART


def raised() -> Iterator[tuple[str, ast.Call]]:
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                yield f"{file}:{node.lineno}", node.exc


def test_every_error_that_is_raised_says_what_to_do_next() -> None:
    ours = set(classes()) - APART - PARTS
    silent = []
    for place, call in raised():
        named = isinstance(call.func, ast.Name) and call.func.id in ours
        unpacked = any(isinstance(argument, ast.Starred) for argument in call.args)
        if named and not unpacked and len(call.args) < 3 and "what_next" not in {word.arg for word in call.keywords}:
            silent.append(f"{place} {ast.unparse(call.func)}")
    assert silent == []


@pytest.mark.parametrize(
    ("sentences", "text"),
    [
        (("A.",), "A."),
        (("A.", "B.", "C."), "A. B. C."),
        (("A.", "", "C."), "A. C."),
        (("A:\n", "  b\n", "C."), "A:\n  b\nC."),
    ],
)
def test_the_sentences_follow_one_another(sentences: tuple[str, ...], text: str) -> None:
    assert str(AutodidactError(*sentences)) == text


@pytest.mark.parametrize(
    "error",
    [AutodidactError("a", "b", "c"), RowError("why", "what"), CorruptStageError("damaged.", Path("stage"))],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error: AutodidactError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_bad_input_and_failures_end_with_different_codes() -> None:
    assert (AutodidactError.exit_code, RunFailedError.exit_code) == (BAD_INPUT, FAILED)
    assert RunDirectoryError.exit_code == BAD_INPUT, "a folder that cannot be written is found before a run starts"
