r"""The program in a completion. The rule, in words:

A block is what is between two fences of three or more backticks or tildes, indented, quoted by '>' or not. A fence
labeled as Python opens one after any text on its line; one without a label after a tag or colon. One may be open when
the text begins. What closes it:

    ```                        alone, or before a punctuation mark or a space and words, but not before a label
    return 2```                the same after code, if that makes the block Python

A fence inside a string of the program does not end it if the program would be invalid otherwise. A Markdown block is
searched for blocks. Content of <think>…</think> does not count if there is a block outside. A text that is Python as it
is, is the program.

Of the blocks that are Python, by label or, without one, by content, the last one counts that defines what the tests
call and is not a stub (`...`, `pass`, `raise`); for a script, the last that runs on its own, preferably one that reads
input. Blocks that define what it lacks are added: earlier ones before later ones. Usage examples, unit tests, outputs
and shell commands are skipped this way.

Without a block, the content of <answer>…</answer>, [BEGIN]…[DONE] or [PYTHON]…[/PYTHON] counts, else the entire text.
"""

import ast
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from data.rewards.answer import outside_thoughts
from data.sandbox.naming import Defined, defined

_FENCE = re.compile(r"^[ \t]*(?:(?:[-*+]|[0-9]{1,3}[.)])[ \t]+)?(?P<fence>`{3,}|~{3,})(?P<label>[^`\n]*)$")
_LATE_FENCE = re.compile(
    r"(?P<tag>(?:[>:\]][ \t]*)?)(?P<fence>(?<!`)`{3,}|(?<!~)~{3,})[ \t]*(?P<label>(?:python|py)[23]?|)$", re.IGNORECASE
)
_QUOTED_FENCE = re.compile(r"^ {0,3}> ?[ \t]*(?:`{3}|~{3})", re.MULTILINE)
_QUOTE = re.compile(r"^ {0,3}>(?: |$|(?=`{3}|~{3}))", re.MULTILINE)
_OPENING_TAG = re.compile(r"<answer>|\[BEGIN\]|\[PYTHON\]", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</answer>|\[DONE\]|\[/PYTHON\]|<\|(?:im_end|endoftext|eot_id)\|>|</s>", re.IGNORECASE)
_READS = re.compile(r"\binput\s*\(|\bstdin\b(?!\s*=[^=])|\bopen\(\s*0|/dev/stdin|\bfileinput\b|\bos\.read\(\s*0")
_PYTHON = {"python", "py", "python3", "py3", "python2", "ipython", "sage"}
_MARKS = {*_PYTHON, "BEGIN", "DONE", "PYTHON"}  # '~~~python' and '[DONE]' could be Python
_MARKDOWN = {"markdown", "md"}
_OTHER_LABELS = {*_MARKDOWN, *"pycon bash sh shell console text txt plaintext output input json c cpp java js".split()}
LONGEST_TEXT = 100_000  # characters of an answer that are searched for programs
MOST_BLOCKS, MOST_ENDS = 32, 5  # the last blocks of an answer, and the fences that may end one: both are costly to read


class Block(NamedTuple):
    """A block that may be Python, with what it defines and lacks if so."""

    code: str
    labelled: bool
    defined: Defined | None


def extract_program(completion: str, names: Sequence[str] = ()) -> str:
    """The program in a completion; all of it if it has no block of Python.

    Args:
        names: what the tests call; empty for a script.
    """
    whole = completion.lstrip("\ufeff")
    found = defined(whole[:LONGEST_TEXT])
    if found and not found.lacks & _MARKS:
        return whole
    said = outside_thoughts(whole)
    blocks = _python_blocks(said)
    if said != whole and not any(block.code.strip() and _is_python(block.code) for block in blocks):
        blocks = _python_blocks(whole)
    return _chosen(blocks, names) if blocks else _without_blocks(whole, said, names)


def _without_blocks(whole: str, said: str, names: Sequence[str]) -> str:
    """The content between tags, else the entire text."""
    if len(whole) > LONGEST_TEXT:
        return whole
    pieces = [_CLOSING_TAG.split(piece, maxsplit=1)[0].strip("\r\n") for piece in _OPENING_TAG.split(said)]
    blocks = [_block(piece) for piece in pieces[-MOST_BLOCKS:] if _does_something(piece)]
    return _chosen(blocks, names) if blocks else pieces[-1] or whole


def _block(code: str, labelled: bool = True) -> Block:
    return Block(code, labelled, defined(code))


def _chosen(blocks: list[Block], names: Sequence[str]) -> str:
    """The block that counts, with those that define what it lacks."""
    known = set[str]()
    ranks = list[tuple[bool | int, ...]]()
    for number, block in enumerate(blocks):
        rank = _rank_by_names(block, {*names}) if names else _rank_of_script(blocks, number, known)
        ranks.append((*rank, number))
        known |= block.defined.names if block.defined else set()
    return _completed(blocks, ranks.index(max(ranks)))


def _rank_by_names(block: Block, names: set[str]) -> tuple[bool, ...]:
    """Whether it fully defines what tests call; whether it is labeled, and Python."""
    makes = block.defined is not None and bool(block.defined.makes & names)
    return makes and not _is_sketch(block.code, names), makes, block.labelled, block.defined is not None


def _rank_of_script(blocks: list[Block], number: int, known: set[str]) -> tuple[bool, ...]:
    """Whether it runs and reads input; whether it runs, is labeled, is Python, and lacks nothing defined before."""
    code, labelled, found = blocks[number]
    if found is None:
        return False, False, labelled, False, False
    reads = found.acts and "subprocess" not in code and _READS.search(_completed(blocks, number)) is not None
    return reads, found.acts, labelled, True, not found.lacks & known


def _is_sketch(code: str, names: set[str]) -> bool:
    """Whether the functions of these names are stubs or, if there are none, every function and class is."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    parts = [node for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]
    asked = [node for node in parts if node.name in names and not isinstance(node, ast.ClassDef)]
    return bool(parts) and all(_is_hollow(inner) for part in asked or parts for inner in part.body)


def _is_hollow(node: ast.stmt) -> bool:
    """Whether a statement inside a function or class does nothing. Definitions inside are checked separately."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Pass | ast.Raise | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _completed(blocks: list[Block], chosen: int) -> str:
    """A block with those that define what it lacks, earlier ones first. A later block that acts goes last."""
    code, _, known = blocks[chosen]
    lacks, before, between, behind = {*known.lacks} if known else set(), list[str](), list[str](), list[str]()
    for other, _, found in reversed(blocks[:chosen]):
        if found and lacks & found.names:
            before.insert(0, other)
            lacks = (lacks - found.names) | found.lacks
    for other, _, found in blocks[chosen + 1 :]:
        if found and lacks & found.makes:
            (behind if found.acts else between).append(other)
            lacks -= found.makes
    return "\n\n".join([*before, *between, code, *behind])


def _python_blocks(text: str) -> list[Block]:
    """The blocks labeled as Python, and those without a label that are Python, or all of these if none is."""
    text = text[:LONGEST_TEXT]
    if _QUOTED_FENCE.search(text):
        text = _QUOTE.sub("", text)
    found = [(label, code) for label, code in _blocks(text) if label in ("", "pycon", *_PYTHON)][-MOST_BLOCKS:]
    sure = [_block(code, label in _PYTHON) for label, code in found if label in _PYTHON or _does_something(code)]
    return sure or [_block(code, False) for label, code in found if code.strip() and _is_python(code)]


def _does_something(code: str) -> bool:
    """Whether this is a program, not a number or word that happens to be Python."""
    return re.search(r"[=(:]|\b(?:import|pass)\b", code) is not None and defined(code) is not None


def _is_python(code: str) -> bool:
    """Whether this is a program or the body of a function."""
    body = code.lstrip("\n")[:1].isspace()
    return (defined(f"def _():\n{code}") if body else defined(code)) is not None


def _blocks(text: str) -> list[tuple[str, str]]:
    """Label and content of each block. The last one may be unclosed."""
    lines = text.split("\n")
    blocks, number = _begun(lines)
    while number < len(lines):
        opening = _opening(lines[number].rstrip())
        number += 1
        if opening and (label := _label(opening["label"])) not in _MARKDOWN:
            code, number = _inside(lines, number, opening, label)
            blocks.append((label, code))
    return blocks


def _begun(lines: list[str]) -> tuple[list[tuple[str, str]], int]:
    """The block that was opened before the text begins, as a prompt may do, and the line after it."""
    first = next((number for number, line in enumerate(lines) if line.startswith(("```", "~~~"))), 0)
    code = "\n".join(lines[:first])
    is_body = code.lstrip("\n")[:1].isspace() and _is_python(code)
    if "~~~" not in code and (is_body or _does_something(code)):
        return [("", code)], first + (_label(lines[first]) == "")
    return [], 0


def _opening(line: str) -> re.Match[str] | None:
    late = None if (own := _FENCE.match(line)) else _LATE_FENCE.search(line)
    return late if late and (late["tag"] or late["label"]) else own


def _label(words: str) -> str:
    found = re.search(r"[\w+#-]+", words.lower())
    return found[0] if found else ""


def _inside(lines: list[str], start: int, opening: re.Match[str], label: str) -> tuple[str, int]:
    """The content of a block, and the line after it.

    It ends at the first fence that makes it valid Python, else at the first fence, else with the text.
    """
    python, ends, otherwise = label in ("", "pycon", *_PYTHON), 0, None
    for number in range(start, len(lines)):
        if otherwise and ends == MOST_ENDS:
            break
        before = _before_closing(lines[number].rstrip(), opening["fence"])
        if before is None:
            if (inner := _FENCE.match(lines[number].rstrip())) and (otherwise or _label(inner["label"]) in _PYTHON):
                if otherwise:
                    break  # another block begins
                otherwise = number, number  # this one was left unclosed
        elif ends < MOST_ENDS or not (otherwise or before):
            code = _unindented([*lines[start:number], *filter(None, [before])], opening)
            if not python or _is_python(code):
                return code, number + 1
            ends += 1
            otherwise = otherwise or (None if before else (number, number + 1))
    if otherwise:
        return _unindented(lines[start : otherwise[0]], opening), otherwise[1]
    code = _unindented(lines[start:], opening)
    return code if _is_python(code) else _CLOSING_TAG.split(code, maxsplit=1)[0], len(lines)


def _before_closing(line: str, fence: str) -> str | None:
    """The text before the fence on a line that closes a block; None if the line does not close one."""
    if line.lstrip().startswith(fence):
        return "" if _ends_fence(line.lstrip().lstrip(fence[0])) else None
    head, found, tail = line.rpartition(fence)
    return head.rstrip(fence[0]) if found and "#" not in head and _ends_fence(tail) else None


def _ends_fence(rest: str) -> bool:
    """Whether a fence with this text after it still closes a block: the text is not a label."""
    if not rest[:1].isspace():
        return not rest or not (rest[0].isalnum() or rest[0] in "_{`")
    label = _label(rest)
    return label not in _PYTHON and not (label in _OTHER_LABELS and len(rest.split()) == 1)


def _unindented(lines: list[str], opening: re.Match[str]) -> str:
    code = "\n".join(lines)
    return textwrap.dedent(code) if opening.re is _FENCE and opening.start("fence") else code
