"""The pairs of the RLHF demo are those that its script writes, and what it says of them."""

import json

from data.arithmetic import has_false_step, shows_no_steps
from scripts.pairs import COUNT, PAIRS, pairs


def test_the_file_is_what_the_script_writes() -> None:
    assert PAIRS.read_text() == pairs()


def test_every_chosen_answer_is_right_and_every_rejected_one_is_wrong() -> None:
    rows = [json.loads(line) for line in pairs().splitlines()]
    assert len(rows) == COUNT
    for row in rows:
        chosen, rejected = row["chosen"], row["rejected"]
        assert not has_false_step(chosen) and not shows_no_steps(chosen)
        assert has_false_step(rejected) or (shows_no_steps(rejected) and rejected.split()[-1] != chosen.split()[-1])
