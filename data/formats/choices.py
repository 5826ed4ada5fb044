"""Multiple-choice formats: the options are lettered, and the reference is the letter."""

import json
from collections.abc import Iterator, Mapping
from string import ascii_uppercase
from typing import Any

from data.formats.record import (
    ContentError,
    Format,
    Record,
    Row,
    RowError,
    Use,
    found,
    is_missing,
    optional_text,
    short,
    text,
    user,
)
from data.formats.values import answer, is_blank

COLUMNS = tuple("ABCDEFGHIJ")
KEYS = ("answer", "answerKey", "answer_index", "label")


def _listed(row: Row) -> Iterator[Record]:
    """MMLU (arXiv 2009.03300), MMLU-Pro and ARC (option texts with labels), and MedQA (each option under its label)."""
    said = row["choices" if "choices" in row else "options"]
    labels, given = _labeled(_parsed(said))
    if not isinstance(given, list) or not 2 <= len(given) <= len(ascii_uppercase):
        raise RowError("no choices", f"the options are {short(said)}. There must be 2 to 26, in a list")
    yield _choice(
        row, [answer({"option": option}, "option") for option in given], labels if isinstance(labels, list) else []
    )


def _parsed(given: Any) -> Any:
    """The options, which a table of texts holds as JSON."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return given


def _labeled(given: Any) -> tuple[Any, Any]:
    """The labels and the options: a list, two lists, an object for each option, or a mapping from label to option."""
    if isinstance(given, list) and given and all(isinstance(option, Mapping) for option in given):
        return [option.get("label") for option in given], [option.get("text") for option in given]
    if not isinstance(given, Mapping):
        return [], given
    if "text" in given:
        return given.get("label"), given["text"]
    there = {label: option for label, option in given.items() if not is_missing(option)}
    return [*there], [*there.values()]


def _has_choices(row: Row) -> bool:
    given = row["choices" if "choices" in row else "options"]
    return isinstance(given, list | Mapping) or (isinstance(given, str) and bool(given.strip()))


def _in_columns(row: Row) -> Iterator[Record]:
    """MMLU's own files, C-Eval and CMMLU: one option per column."""
    options = [answer(row, name) for name in COLUMNS if name in row and not is_blank(row, name)]
    yield _choice(row, options, [])


def _choice(row: Row, options: list[str], labels: Any) -> Record:
    shown = "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
    asked = "\n".join(filter(None, (text(row, "question"), optional_text(row, "input"))))
    known = [name for name in KEYS if name in row] or [KEYS[0]]
    key = next((name for name in known if not is_blank(row, name)), known[0])
    letter = ascii_uppercase[_index(row, key, options, labels)]
    return Record([user(f"{asked}\n\n{shown}")], letter, reference=letter)


def _index(row: Row, key: str, options: list[str], labels: Any) -> int:
    """The index of the right option, given by its label, its letter, its text, or its number counted from 0.

    Raises:
        RowError: no option matches.
    """
    given = answer(row, key).strip()
    letters = [*ascii_uppercase[: len(options)]]
    names = [
        [str(label) for label in labels] if isinstance(labels, list) else [],
        letters,
        [option.strip() for option in options],
    ]
    names += [[letter.lower() for letter in letters], [f"({letter})" for letter in letters]]
    names += [[f"{letter}{sign}" for letter in letters] for sign in ").:"]
    names.append([f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)])
    if isinstance(row[key], int | float) and not isinstance(
        row[key], bool
    ):  # a number is an index, even if an option is that number
        names = names[:1]
    names.append([str(number) for number in range(len(options))])
    for known in names:
        if given in known:
            return known.index(given)
    raise ContentError("no such choice", f"{key!r} names none of the {len(options)} options ({found(row, key)})")


CHOICES: tuple[Use, ...] = ("problems", "demonstrations", "prompts")
FORMATS = (
    Format(
        "multiple-choice",
        "MMLU, ARC, MedQA",
        _listed,
        CHOICES,
        f"question choices|options {'|'.join(KEYS)}",
        fits=_has_choices,
    ),
    Format(
        "choices-in-columns",
        "MMLU's own files, C-Eval",
        _in_columns,
        CHOICES,
        "question A B answer",
        " ".join(COLUMNS[2:]),
    ),
)
