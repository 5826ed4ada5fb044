"""Formats of problems that a verifier can check: final answers and programs."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from data.formats.chat import asked, reply
from data.formats.record import Format, Record, Row, RowError, Use, found, items, optional_text, short, text, user
from data.formats.values import BARE, LABELS, answer, bare_answer, bare_column, is_blank

SOLUTIONS = ("solution", "generated_solution")
RESPONSES = (*SOLUTIONS, "response", "completion")
EITHER = "|".join(("answer", *SOLUTIONS, *BARE[1:]))
BESIDE = " ".join((*BARE, *SOLUTIONS, "system"))


def _question_answer(row: Row) -> Iterator[Record]:
    """GSM8K: a worked answer that ends in `#### n` (Cobbe et al. 2021, arXiv 2110.14168), or the bare answer."""
    yield _worked(row, "question")


def _math(row: Row) -> Iterator[Record]:
    r"""MATH: a worked solution that holds `\boxed{…}` (Hendrycks et al. 2021, arXiv 2103.03874).

    OpenR1, NuminaMath and DeepScaleR have the bare answer as well.
    """
    yield _worked(row, "problem")


def _prompt_answer(row: Row) -> Iterator[Record]:
    yield _worked(row, "prompt", RESPONSES)


def _worked(row: Row, question: str, columns: Sequence[str] = SOLUTIONS) -> Record:
    """The reference is the bare answer, the gold answer the worked solution; if one is missing, the other serves."""
    final = bare_column(row)
    worked = next((name for name in (*columns, BARE[0]) if name != final and not is_blank(row, name)), None)
    if worked is None:
        given = bare_answer(row, final or next((name for name in (*BARE, *columns) if name in row), BARE[0]))
        # If other rows have a solution, the bare answer is not one to learn from.
        return Record(asked(row, question), None if row.keys() & columns else given, reference=given)
    solution = answer(row, worked) if worked in (*SOLUTIONS, BARE[0]) else reply(row, worked)
    return Record(asked(row, question), solution, reference=bare_answer(row, final) if final else solution)


def _demonstrated(read: Callable[[Row], Iterator[Record]]) -> Callable[[Row], Iterator[Record]]:
    """A reader of the same rows as demonstrations, which need a gold answer."""

    def demonstrate(row: Row) -> Iterator[Record]:
        for record in read(row):
            if record.response is None:
                name = next(name for name in RESPONSES if name in row)
                raise RowError(f"empty {name}", f"no {name!r} to learn from ({found(row, name)})")
            yield record

    return demonstrate


def _verl(row: Row) -> Iterator[Record]:
    """verl: the reference is nested in `reward_model`, and further inputs of its rewards in `extra_info`."""
    truth = _json(row, "reward_model")
    if not isinstance(truth, Mapping) or is_blank(truth, "ground_truth"):
        raise RowError("no ground truth", f"'reward_model' must hold a 'ground_truth' ({found(row, 'reward_model')})")
    (record,) = _verl_prompt(row)
    extra = _json(row, "extra_info") if row.get("extra_info") else None
    gold = answer(extra, "answer") if isinstance(extra, Mapping) and not is_blank(extra, "answer") else None
    yield replace(record, response=gold, reference=bare_answer(truth, "ground_truth"))


def _verl_demonstrations(row: Row) -> Iterator[Record]:
    for record in _verl(row):
        if record.response is None:
            raise RowError(
                "no gold answer", f"'extra_info' holds no 'answer' to learn from ({found(row, 'extra_info')})"
            )
        yield record


def _is_verl(row: Row) -> bool:
    """Whether `reward_model` holds a reference, possibly as JSON, rather than the name of a model."""
    truth = row["reward_model"]
    return isinstance(truth, Mapping) or (isinstance(truth, str) and truth.lstrip().startswith("{"))


def _verl_prompt(row: Row) -> Iterator[Record]:
    yield Record(asked(row, "prompt"), source=optional_text(row, "data_source") or None)


def _apps(row: Row) -> Iterator[Record]:
    """APPS (Hendrycks et al. 2021, arXiv 2105.09938): `input_output` and `solutions` are JSON inside a text."""
    tests = _json(row, "input_output")
    if not isinstance(tests, Mapping) or not tests.get("inputs") or not tests.get("outputs"):
        raise RowError("no tests", f"'input_output' must hold 'inputs' and 'outputs' ({found(row, 'input_output')})")
    if not isinstance(tests["inputs"], list) or not isinstance(tests["outputs"], list):
        raise RowError("no tests", "'inputs' and 'outputs' of 'input_output' must be lists")
    if (given := len(tests["inputs"])) != (wanted := len(tests["outputs"])):
        raise RowError(
            "unequal tests", f"'input_output' holds {given} inputs and {wanted} outputs. The numbers must be equal."
        )
    solutions = _json(row, "solutions") if row.get("solutions") else []
    gold = (
        next((s for s in solutions if isinstance(s, str) and s.strip()), None) if isinstance(solutions, list) else None
    )
    asked = "\n\n".join(filter(None, (text(row, "question"), optional_text(row, "starter_code"))))
    kept = ("inputs", "outputs", "fn_name")
    yield Record([user(asked)], gold, reference=_tests("apps", {k: tests[k] for k in kept if tests.get(k)}))


def _human_eval(row: Row) -> Iterator[Record]:
    """HumanEval (Chen et al. 2021, arXiv 2107.03374): the answer continues where the prompt stops."""
    tests = {"test": text(row, "test"), "entry_point": text(row, "entry_point"), "prompt": text(row, "prompt")}
    gold = optional_text(row, "canonical_solution") or None
    yield Record([user(tests["prompt"])], gold, reference=_tests("humaneval", tests))


def _mbpp(row: Row) -> Iterator[Record]:
    """MBPP (Austin et al. 2021, arXiv 2108.07732); its sanitized edition calls the text `prompt`."""
    asked = text(row, "text" if "text" in row else "prompt")
    tests = _texts(row, "test_list")
    imports = _texts(row, "test_imports") if row.get("test_imports") else []
    setup = optional_text(row, "test_setup_code") or "\n".join(imports)
    # As in the paper, the prompt shows the tests: without them the function's name is unknown.
    asked = "\n".join((asked, "Your code should pass these tests:", "", *tests))
    yield Record(
        [user(asked)], optional_text(row, "code") or None, reference=_tests("mbpp", {"setup": setup, "asserts": tests})
    )


def _prompt_tests(row: Row) -> Iterator[Record]:
    tests = _texts(row, "tests")
    gold = optional_text(row, "response") or None
    yield Record(asked(row, "prompt"), gold, reference=_tests("mbpp", {"setup": "", "asserts": tests}))


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
    """Tests as a reference: JSON that names their format."""
    return json.dumps({"kind": kind, **tests}, ensure_ascii=False, sort_keys=True)


ANSWERS: tuple[Use, ...] = ("problems", "demonstrations", "prompts")
PROGRAMS: tuple[Use, ...] = ("programs", "demonstrations", "prompts")
FORMATS = (
    Format(
        "question-answer",
        "GSM8K",
        _question_answer,
        ANSWERS,
        f"question {EITHER}",
        BESIDE,
        demonstrate=_demonstrated(_question_answer),
    ),
    Format(
        "math",
        "MATH, NuminaMath, OpenR1, DeepScaleR",
        _math,
        ANSWERS,
        f"problem {EITHER}",
        BESIDE,
        demonstrate=_demonstrated(_math),
    ),
    Format(
        "prompt-answer",
        "prompt and final answer, TRL",
        _prompt_answer,
        ANSWERS,
        f"prompt {EITHER}",
        f"{BESIDE} response completion {' '.join(LABELS)}",
        demonstrate=_demonstrated(_prompt_answer),
    ),
    Format(
        "verl",
        "verl",
        _verl,
        ANSWERS,
        "prompt reward_model",
        "data_source extra_info",
        _is_verl,
        demonstrate=_verl_demonstrations,
        ask=_verl_prompt,
    ),
    Format("apps", "APPS", _apps, PROGRAMS, "question input_output", "solutions starter_code"),
    Format("humaneval", "HumanEval", _human_eval, PROGRAMS, "prompt test entry_point", "canonical_solution"),
    Format("mbpp", "MBPP", _mbpp, PROGRAMS, "text|prompt test_list", "code test_setup_code test_imports"),
    Format("prompt-tests", "prompt and tests", _prompt_tests, PROGRAMS, "prompt tests", "response"),
)
