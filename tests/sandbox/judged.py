"""The programs of `judged.txt`, `attacks.txt`, `scripts.txt` and `honest.jsonl`, with what they come to."""

import json
import re
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_CASE = re.compile(r"^=== (\w+)\n(.*?)^---\n(.*?)(?=^=== |\Z)", re.MULTILINE | re.DOTALL)
_SCRIPT = re.compile(r"^===\n(.*?)^--- reads\n(.*?)^--- prints\n(.*?)(?=^===\n|\Z)", re.MULTILINE | re.DOTALL)

# A program, its tests, and what Python comes to that runs both as one.
JUDGED: list[tuple[str, str, str]] = [
    (code, tests, outcome) for outcome, code, tests in _CASE.findall((_HERE / "judged.txt").read_text())
]
# A script, what it reads and what it prints.
SCRIPTS: list[tuple[str, str, str]] = _SCRIPT.findall((_HERE / "scripts.txt").read_text())
# A program, and the tests that it attacks.
ATTACKS: list[tuple[str, str]] = re.findall(
    r"^===\n(.*?)^---\n(.*?)(?=^===\n|\Z)", (_HERE / "attacks.txt").read_text(), re.MULTILINE | re.DOTALL
)
HONEST: list[dict[str, Any]] = [json.loads(line) for line in (_HERE / "honest.jsonl").read_text().splitlines()]
