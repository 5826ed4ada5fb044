"""Find a reward by name or import path, and its version. Grades nothing itself."""

import difflib
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from data.errors import AutodidactError
from data.formats import Use
from data.rewards.answer import has_answer
from data.rows import Problem, Score
from data.sandbox.isolation import Level

Reward = Callable[[Problem, str], Score]

BUILT_IN: dict[str, str] = {
    "final_answer": "data.rewards.final_answer:final_answer",
    "program": "data.rewards.program:program",
}


class RewardError(AutodidactError):
    """A reward cannot be loaded: what is wrong, why, and what to do next."""


def load_reward(name: str) -> Reward:
    """The reward called `name`: a built-in one, or the user's own as `package.module:function`.

    Modules in the current directory are found too, even if the program was started from its console script.

    Raises:
        RewardError: there is no such reward, its module cannot be imported, or it is not a function of two arguments.
    """
    return _checked(load_named(name), name)


def load_named(name: str) -> object:
    """The object called `name`, of any kind.

    Raises:
        RewardError: it does not exist, or its module cannot be imported.
    """
    module_name, colon, attribute = BUILT_IN.get(name, name).partition(":")
    if not colon:
        raise RewardError(
            f"There is no built-in reward {name!r}.{_nearest(name, BUILT_IN)}",
            what_next=f"Use one of {', '.join(sorted(BUILT_IN))}, or your own function as 'package.module:function'.",
        )
    if not module_name or not attribute:
        raise RewardError(
            f"Reward {name!r} is not an import path.",
            what_next="Write it as 'package.module:function', for example 'my_rewards:exact_match' for the function "
            "exact_match in ./my_rewards.py.",
        )
    return _attribute(_import(module_name, name), attribute, name)


def judged_by(reward: Reward) -> tuple[Use, Callable[[str | None], bool]]:
    """The use that data sets have to be read for, and a function that tells whether a reference can be graded."""
    return getattr(reward, "reads", "problems"), getattr(reward, "can_grade", has_answer)


def prepare_reward(reward: Reward, isolation: Level) -> None:
    """Check that a reward can work in this process, and set the lowest isolation level it may run programs at.

    Raises:
        RewardError: the reward cannot work here.
    """
    getattr(reward, "isolate", lambda _: None)(isolation)
    getattr(reward, "prepare", lambda: None)()


def grader_version(reward: Reward) -> str:
    """Name and version of a reward, stored with every score: 'final_answer@1' for a built-in one.

    For a user's own reward it ends in 12 hex digits of the SHA-256 over its module's source, so scores from before an
    edit are not mistaken for scores from after it. Modules that it imports are not covered.

    Raises:
        RewardError: the function has no source file (it was defined interactively).
    """
    path = f"{reward.__module__}:{reward.__qualname__}"
    for name, built_in in BUILT_IN.items():
        if built_in == path:
            return f"{name}@{reward.version}"  # type: ignore[attr-defined]
    source = getattr(sys.modules.get(reward.__module__), "__file__", None)
    if source is None:
        raise RewardError(
            f"Reward {path!r} has no source file, so an edit to it would go unnoticed.",
            what_next="Move the function into a module, and name it as 'module:function'.",
        )
    return f"{path}@{hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]}"


def _import(module_name: str, name: str) -> ModuleType:
    # Last, so a file here cannot shadow an installed package; kept, because a reward may import lazily.
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _raised(module_name, name, error) from error
        hint = f" Write {module_name[:-3]!r}, without '.py'." if module_name.endswith(".py") else ""
        raise RewardError(
            f"Reward {name!r} cannot be loaded: there is no module {error.name!r}.{hint}",
            f"Searched the installed packages and {here}.",
            "Run from the directory that contains it, or install it.",
        ) from error
    except (Exception, SystemExit) as error:
        raise _raised(module_name, name, error) from error


def _raised(module_name: str, name: str, error: BaseException) -> RewardError:
    return RewardError(
        f"Reward {name!r} cannot be loaded: importing {module_name!r} raised {type(error).__name__}: {error}.",
        what_next=f"Make `python -c 'import {module_name}'` work first.",
    )


def _attribute(module: ModuleType, attribute: str, name: str) -> object:
    try:
        return getattr(module, attribute)
    except AttributeError:
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise RewardError(
            f"Reward {name!r} cannot be loaded: module {module.__name__!r} ({module.__file__}) has no "
            f"{attribute!r}.{_nearest(attribute, functions)}",
            what_next="Check the name after the colon.",
        ) from None


def _checked(reward: object, name: str) -> Reward:
    if not inspect.isfunction(reward):
        what = "a class" if inspect.isclass(reward) else f"an object of type {type(reward).__name__!r}"
        raise RewardError(
            f"Reward {name!r} is {what}, not a function.",
            what_next="Give a function (problem, completion) that returns a Score.",
        )
    try:
        inspect.signature(reward).bind(None, "")
    except TypeError as error:
        raise RewardError(
            f"Reward {name!r} has the parameters {inspect.signature(reward)}, but is called with two: {error}.",
            what_next="Define it as (problem, completion), with defaults for any others.",
        ) from None
    return reward


def _nearest(wanted: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(wanted, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
