"""A configuration file says one thing, in bounded time."""

from itertools import pairwise
from pathlib import Path

import pytest

from data.errors import UsageError
from flows.commands.yaml_file import LARGEST, read_yaml


def nested(first: str, row: str) -> str:
    """Ten values, each of which is nine times the one before it."""
    names = "abcdefghij"
    rows = [f"{name}: &{name} {row.replace('*', f'*{before}')}" for before, name in pairwise(names)]
    return "\n".join([f"a: &a {first}", *rows])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' appears twice, in lines 1 and 3"),
        ("a: {x: 1, x: 2}", "the key 'x' appears twice, in lines 1 and 1"),
        (nested("[1]", f"[{', '.join(['*'] * 9)}]"), "more than 10,000 values"),
        (nested("{k: 1}", f"{{<<: [{', '.join(['*'] * 9)}]}}"), "more than 10,000 values"),
        ("a: &a [*a]", "more than 10,000 values"),
        ("[" * 5000, "recursion"),
        ("a: \0", "special characters are not allowed"),
        ("a: !!python/object/apply:os.getpid []", "could not determine a constructor"),
        ("a: 2026-13-45", "month must be in"),
        ("a: !!timestamp 5", "is not valid YAML"),
        ("a: !!int x", "is not valid YAML"),
        ("a: b\n" * LARGEST, "more than 1,048,576 bytes"),
    ],
    ids=range(12),
)
def test_what_is_ambiguous_or_without_bounds_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=why):
        read_yaml(file)


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "settings.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"settings\.yaml (is not valid YAML|is not a file)"):
        read_yaml(file)


def test_aliases_and_merged_keys_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("x: &x {a: 1, b: 2}\ny: {<<: *x, a: 3}\nz: *x")
    assert read_yaml(file) == {"x": {"a": 1, "b": 2}, "y": {"a": 3, "b": 2}, "z": {"a": 1, "b": 2}}
