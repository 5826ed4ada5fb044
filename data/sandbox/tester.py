"""The program that runs a task's tests, inside a sandbox of its own. It has the tests, and no code of the candidate.

What the tests call runs in the candidate's process; what comes back is plain data, or a thing that can be passed on,
called, and asked for attributes, but equals nothing and is neither true nor false. Over two other pipes it gets the
tests, and says whether they passed. Run: python tester.py LIMITS TESTS VERDICT ANSWERS QUESTIONS, all but the first
being descriptors.
"""

import ast
import builtins
import json
import resource
import sys
from typing import Any

sys.path.insert(0, __file__.rpartition("/")[0])

from values import BROKEN, FAILED, PASSED, Channel, NotDataError, decode, encode, said


class CandidateError(Exception):
    """The candidate raised, answered nonsense, or is gone."""


class TestsError(Exception):
    """The tests ask for what cannot be asked over the channel."""


class Remote:
    """A thing in the candidate's process."""

    __slots__ = ("_candidate", "_number")

    def __init__(self, candidate: "Candidate", number: int) -> None:
        object.__setattr__(self, "_candidate", candidate)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._candidate.ask(
            {"of": self._number, "arguments": _encoded(list(arguments)), "named": _encoded(named)}
        )

    def __getattr__(self, name: str) -> Any:
        return self._candidate.ask({"of": self._number, "get": name})

    def __setattr__(self, name: str, value: Any) -> None:
        self._candidate.ask({"of": self._number, "set": name, "value": _encoded(value)})

    def _no_data(self, *_: Any) -> Any:
        raise CandidateError("the candidate gave an object where the tests compare data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = _no_data  # type: ignore[assignment]
    __len__ = __iter__ = __contains__ = __getitem__ = __index__ = __float__ = __str__ = __repr__ = _no_data


class Candidate:
    """The other side of the channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.reply()

    def named(self, name: str) -> Remote:
        found = self.ask({"name": name})
        if not isinstance(found, Remote):
            raise CandidateError("malformed message")
        return found

    def ask(self, message: dict[str, Any]) -> Any:
        try:
            self.channel.send(message)
        except OSError:
            raise CandidateError("the candidate ended") from None
        return self.reply()

    def reply(self) -> Any:
        try:
            answer = self.channel.receive()
            if isinstance(answer, dict) and isinstance(answer.get("raised"), str):
                raise CandidateError(answer["raised"])
            if not isinstance(answer, dict) or set(answer) != {"value"}:
                raise CandidateError("malformed message")
            return decode(answer["value"], lambda number: Remote(self, number))
        except (EOFError, OSError, UnicodeDecodeError):
            raise CandidateError("the candidate ended") from None
        except (NotDataError, RecursionError, MemoryError) as error:
            raise CandidateError(f"no data: {error}") from None


def main() -> None:
    for name, value in json.loads(sys.argv[1]).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    tests, verdict, answers, questions = map(int, sys.argv[2:])
    grader = Channel(tests, verdict)
    told = grader.receive()
    outcome, why = run(told, Channel(answers, questions))
    grader.send({"outcome": outcome, "why": why})


def run(told: dict[str, Any], channel: Channel) -> tuple[str, str]:
    """Whether the tests passed, and if not, why."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(told["prelude"], "prelude.py", "exec"), namespace)
        code = compile(told["tests"], "tests.py", "exec")
    except BaseException as error:
        return BROKEN, said(error)
    try:
        candidate = Candidate(channel)
        for name in {*told["names"], *_free_names(told["tests"], namespace)}:
            namespace[name] = candidate.named(name)
        exec(code, namespace)
    except TestsError as error:
        return BROKEN, str(error)
    except BaseException as error:
        return FAILED, said(error)
    return PASSED, ""


def _free_names(tests: str, namespace: dict[str, Any]) -> set[str]:
    """Names that the tests use and nothing defines: those of the candidate."""
    used: set[str] = set()
    bound = {*namespace, *dir(builtins)}
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return used - bound


def _encoded(value: Any) -> Any:
    def number(thing: Any) -> int:
        if isinstance(thing, Remote):
            return object.__getattribute__(thing, "_number")  # type: ignore[no-any-return]
        raise TestsError(f"the tests hand over a {type(thing).__name__}, which is no plain data")

    return encode(value, number)


if __name__ == "__main__":
    main()
