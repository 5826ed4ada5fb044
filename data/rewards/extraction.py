"""The program in a completion. The rule, in words:

A block is what stands between two fences of three or more back-ticks or tildes, indented or not. A fence inside a text
of the program does not end it, where the program would be none otherwise. Of the blocks that are Python, by their label
or, without one, by what is in them, the last counts that defines what the tests call, or, for a script, that runs on
its own; before it go those that define what it lacks. Examples of use, outputs and shell commands are so passed over.
Without a block the whole text counts.
"""

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from data.sandbox.naming import Defined, defined

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?:(?:[-*+]|[0-9]{1,3}[.)])[ \t]+)?(?P<fence>`{3,}|~{3,})(?P<label>[^`\n]*)$")
_PYTHON = {"python", "py", "python3", "py3", "python2", "ipython", "pycon", "sage"}
LONGEST_TEXT = 100_000  # characters of an answer in which blocks are looked for
MOST_BLOCKS, MOST_ENDS = 32, 4  # the last blocks of an answer, and the fences that may end one: both are read at a cost


class Block(NamedTuple):
    """A block of Python, with what it defines and lacks if it is any."""

    code: str
    defined: Defined | None


def extract_program(completion: str, names: Sequence[str] = ()) -> str:
    """The program that a completion gives; all of it if it has no block of Python.

    Args:
        names: what the tests call; none for a script.
    """
    blocks = [Block(code, defined(code)) for code in _python_blocks(completion[:LONGEST_TEXT])[-MOST_BLOCKS:]]
    if not blocks:
        return completion
    chosen = _chosen(blocks, names)
    return "\n\n".join([*_needed(blocks, chosen), blocks[chosen].code])


def _chosen(blocks: list[Block], names: Sequence[str]) -> int:
    """The number of the block that counts."""
    fitting: list[int] = []
    valid: list[int] = []
    before: set[str] = set()
    for number, (_, found) in enumerate(blocks):
        if found is not None:
            valid.append(number)
            if found.names & {*names} if names else found.acts and not found.lacks & before:
                fitting.append(number)
            before |= found.names
    return (fitting or valid or [len(blocks) - 1])[-1]


def _needed(blocks: list[Block], chosen: int) -> list[str]:
    """The blocks before it that define what it lacks."""
    known = blocks[chosen].defined
    lacks, needed = {*known.lacks} if known else set(), list[str]()
    for code, found in reversed(blocks[:chosen]):
        if found and lacks & found.names:
            needed.insert(0, code)
            lacks = (lacks - found.names) | found.lacks
    return needed


def _python_blocks(text: str) -> list[str]:
    """What is in the blocks that are labelled as Python; if none is, in those without a label that are Python."""
    blocks = _blocks(text)
    plain = [code for label, code in blocks if not label]
    return [code for label, code in blocks if label in _PYTHON] or [*filter(_does_something, plain)] or plain


def _does_something(code: str) -> bool:
    """Whether this is a program, and not a number or a word that happens to be Python."""
    return re.search(r"[=(:]|\b(?:import|pass)\b", code) is not None and defined(code) is not None


def _blocks(text: str) -> list[tuple[str, str]]:
    """The label and what is in each block. The last need not be closed."""
    lines, blocks, number = text.split("\n"), [], 0
    while number < len(lines):
        opening = _FENCE.match(lines[number].rstrip())
        number += 1
        if opening is None:
            continue
        label = (opening["label"].strip().lower().lstrip("{.").split() or [""])[0].rstrip("}")
        end = _end(lines, number, opening, label)
        blocks.append((label, _unindented(lines[number:end], opening)))
        number = end + 1
    return blocks


def _end(lines: list[str], start: int, opening: re.Match[str], label: str) -> int:
    """The line that closes a block: the first after which it is Python, else the first there is, else none."""
    closing: list[int] = []
    for number in range(start, len(lines)):
        if _closes(lines[number].strip(), opening["fence"]):
            closing.append(number)
            if label not in ("", *_PYTHON) or len(closing) == MOST_ENDS:
                break
            if defined(_unindented(lines[start:number], opening)) is not None:
                return number
        elif closing and _FENCE.match(lines[number]):
            break  # another block begins
    return closing[0] if closing else len(lines)


def _closes(line: str, fence: str) -> bool:
    return len(line) >= len(fence) and not line.strip(fence[0])


def _unindented(lines: list[str], opening: re.Match[str]) -> str:
    code = "\n".join(lines)
    return textwrap.dedent(code) if opening.start("fence") else code
