"""Formats of problems that a verifier can judge: final answers and programs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from data.formats.record import Format, Record, Row, RowError, Use, found, items, optional_text, short, text, user


def _question_answer(row: Row) -> Iterator[Record]:
    """GSM8K: a worked answer that ends in `#### n` (Cobbe et al. 2021, arXiv 2110.14168), or the bare answer."""
    yield _worked(row, "question", "answer")


def _math(row: Row) -> Iterator[Record]:
    r"""MATH: a worked solution that holds `\boxed{…}` (Hendrycks et al. 2021, arXiv 2103.03874)."""
    yield _worked(row, "problem", "solution")


def _worked(row: Row, question: str, answer: str) -> Record:
    given = row.get(answer)
    if isinstance(given, int | float) and not isinstance(given, bool):
        row = {**row, answer: str(given)}
    asked, worked = text(row, question), text(row, answer)
    return Record([user(asked)], worked, reference=worked)


def _apps(row: Row) -> Iterator[Record]:
    """APPS (Hendrycks et al. 2021, arXiv 2105.09938): `input_output` and `solutions` are JSON inside a text."""
    tests = _json(row, "input_output")
    if not isinstance(tests, Mapping) or not tests.get("inputs") or not tests.get("outputs"):
        raise RowError("no tests", f"'input_output' must hold 'inputs' and 'outputs' ({found(row, 'input_output')})")
    if not isinstance(tests["inputs"], list) or not isinstance(tests["outputs"], list):
        raise RowError("no tests", "'inputs' and 'outputs' of 'input_output' must be lists")
    if (given := len(tests["inputs"])) != (wanted := len(tests["outputs"])):
        raise RowError(
            "unequal tests", f"'input_output' holds {given} inputs and {wanted} outputs. Each needs the other."
        )
    solutions = _json(row, "solutions") if row.get("solutions") else []
    gold = (
        next((s for s in solutions if isinstance(s, str) and s.strip()), None) if isinstance(solutions, list) else None
    )
    asked = "\n\n".join(filter(None, (text(row, "question"), optional_text(row, "starter_code"))))
    kept = ("inputs", "outputs", "fn_name")
    yield Record([user(asked)], gold, reference=_tests("apps", {k: tests[k] for k in kept if tests.get(k)}))


def _human_eval(row: Row) -> Iterator[Record]:
    """HumanEval (Chen et al. 2021, arXiv 2107.03374): the answer goes on where the prompt stops."""
    tests = {"test": text(row, "test"), "entry_point": text(row, "entry_point"), "prompt": text(row, "prompt")}
    gold = optional_text(row, "canonical_solution") or None
    yield Record([user(tests["prompt"])], gold, reference=_tests("humaneval", tests))


def _mbpp(row: Row) -> Iterator[Record]:
    """MBPP (Austin et al. 2021, arXiv 2108.07732); its sanitised edition calls the text `prompt`."""
    asked = text(row, "text" if "text" in row else "prompt")
    tests = _texts(row, "test_list")
    imports = _texts(row, "test_imports") if row.get("test_imports") else []
    setup = optional_text(row, "test_setup_code") or "\n".join(imports)
    # The paper shows the tests, without which the name of the function cannot be known.
    asked = "\n".join((asked, "Your code should pass these tests:", "", *tests))
    yield Record(
        [user(asked)], optional_text(row, "code") or None, reference=_tests("mbpp", {"setup": setup, "asserts": tests})
    )


def _prompt_tests(row: Row) -> Iterator[Record]:
    tests = _texts(row, "tests")
    gold = optional_text(row, "response") or None
    yield Record([user(text(row, "prompt"))], gold, reference=_tests("mbpp", {"setup": "", "asserts": tests}))


def _prompt_answer(row: Row) -> Iterator[Record]:
    yield _worked(row, "prompt", "answer")


def _texts(row: Row, name: str) -> list[str]:
    found_items = items(row, name)
    if not all(isinstance(item, str) for item in found_items):
        raise RowError(f"not texts in {name}", f"{name!r} must hold texts, not {short(found_items)}")
    return found_items


def _json(row: Row, name: str) -> Any:
    if not isinstance(row.get(name), str):
        return row.get(name)
    try:
        return json.loads(row[name])
    except (ValueError, RecursionError) as problem:
        raise RowError(f"malformed {name}", f"{name!r} is not JSON ({problem})") from None


def _tests(kind: str, tests: Mapping[str, Any]) -> str:
    """Tests as a reference: JSON that names whose they are."""
    return json.dumps({"kind": kind, **tests}, ensure_ascii=False, sort_keys=True)


ANSWERS: tuple[Use, ...] = ("problems", "demonstrations")
PROGRAMS: tuple[Use, ...] = ("programs", "demonstrations")
FORMATS = (
    Format("question-answer", "GSM8K", _question_answer, ANSWERS, "question answer"),
    Format("math", "MATH", _math, ANSWERS, "problem solution"),
    Format("prompt-answer", "prompt and final answer", _prompt_answer, ANSWERS, "prompt answer"),
    Format("apps", "APPS", _apps, PROGRAMS, "question input_output", "solutions starter_code"),
    Format("humaneval", "HumanEval", _human_eval, PROGRAMS, "prompt test entry_point", "canonical_solution"),
    Format("mbpp", "MBPP", _mbpp, PROGRAMS, "text|prompt test_list", "code test_setup_code test_imports"),
    Format("prompt-tests", "prompt and tests", _prompt_tests, PROGRAMS, "prompt tests", "response"),
)
