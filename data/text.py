"""Untrusted text, made safe for where it goes: a file, a terminal, a Markdown or HTML page.

One function per destination. An HTML page takes `visible` text and escapes it as all templates do
(tasks/report/page.py).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# What moves the cursor, ends a line, changes the reading direction or hides words: control characters except tab and
# line feed, line and paragraph separators, direction embeddings, overrides and isolates, tags, and lone surrogates.
# Joiners and direction marks stay: Persian, Indic and right-to-left texts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_CUT = " … ({:,} characters in all)"


def encodable(text: str) -> str:
    """A text that any file can store: a lone surrogate, which UTF-8 cannot encode, is spelled out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def storable(text: str, longest: int | None = None) -> str:
    """A text that any database can store as well: NUL is spelled out too, and text that is too long is cut.

    Args:
        longest: maximum characters; None: unlimited.
    """
    if longest is not None and len(text) > longest:
        text = text[:longest] + _CUT.format(len(text))
    return encodable(text.replace("\0", "\\x00"))


def visible(text: str) -> str:
    r"""A text for a terminal or a page: characters that would act on it or hide are spelled out: `\x1b`, `\u202e`."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def markdown(text: str) -> str:
    """A text as one line of Markdown, or a table cell, without any Markdown meaning."""
    return _PUNCTUATION.sub(r"\\\g<0>", visible(" ".join(text.split())))


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as a table in Markdown, whose cells have no Markdown meaning; None is an empty cell."""
    lines = [list(rows[0]), *([row[name] for name in rows[0]] for row in rows)]
    head, *body = ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]
    return "\n".join([head, "| --- " * len(rows[0]) + "|", *body])


def fenced(text: str, language: str) -> str:
    """A text as a block of code in Markdown, which nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text).rstrip()}\n{fence}"


def _cell(value: Any) -> str:
    return markdown("" if value is None else str(value))
