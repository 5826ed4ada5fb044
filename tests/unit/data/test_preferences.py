"""Preference files become pairs, and every file from which none can be made is refused in plain words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.prepare.sources import DataFileError
from data.rows import Pair, problem_id
from data.storage import read_rows, write_rows
from tests.unit.reading import read_pairs

SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "Hi!"}
HELLO = {"role": "assistant", "content": "Hello."}
NO = {"role": "assistant", "content": "No."}
MORE = {"role": "user", "content": "And?"}

HUMAN = {"from": "human", "value": "Hi!"}
GPT_HELLO, GPT_NO = {"from": "gpt", "value": "Hello."}, {"from": "gpt", "value": "No."}
SIDES = {"chosen": "Hello.", "rejected": "No."}
SHAREGPT = {"conversations": [HUMAN], "chosen": GPT_HELLO, "rejected": GPT_NO}
STACK = {"question": "How?", "response_j": "So.", "response_k": "Why?"}


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(pair: Pair) -> tuple[str, str]:
    return pair.chosen, pair.rejected


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "Hi!", **SIDES}, [USER]),
        ({"prompt": [USER], "chosen": [HELLO], "rejected": [NO]}, [USER]),
        ({"prompt": [SYSTEM, USER], "chosen": [HELLO], "rejected": [NO]}, [SYSTEM, USER]),
        ({"prompt": [USER, NO, MORE], "chosen": [HELLO], "rejected": [NO]}, [USER, NO, MORE]),
        ({"prompt": [USER], "chosen": HELLO, "rejected": NO}, [USER]),
        ({"prompt": [USER], **SIDES}, [USER]),
        ({"prompt": "Hi!", "chosen": [HELLO], "rejected": [NO]}, [USER]),
        ({"prompt": "Hi!", **SIDES, "system": "Be kind."}, [SYSTEM, USER]),
        ({"prompt": "Hi!", **SIDES, "system": None, "score_chosen": 7.5}, [USER]),
        # Sides that begin with the prompt's turns, as in UltraFeedback-binarized.
        ({"prompt": "Hi!", "chosen": [USER, HELLO], "rejected": [USER, NO], "messages": [USER, HELLO]}, [USER]),
        ({"prompt": " Hi!\n", "chosen": [SYSTEM, USER, HELLO], "rejected": [SYSTEM, USER, NO]}, [SYSTEM, USER]),
        ({"prompt": "And?", "chosen": [USER, NO, MORE, HELLO], "rejected": [USER, NO, MORE, NO]}, [USER, NO, MORE]),
        ({"prompt": [USER], "chosen": [USER, HELLO], "rejected": [USER, NO]}, [USER]),
        # LLaMA-Factory's ShareGPT.
        (SHAREGPT, [USER]),
        (SHAREGPT | {"system": ""}, [USER]),
        (SHAREGPT | {"system": "Be kind."}, [SYSTEM, USER]),
        (SHAREGPT | {"conversations": [{"from": "system", "value": "Be kind."}, HUMAN]}, [SYSTEM, USER]),
        (SHAREGPT | {"conversations": [HUMAN, GPT_NO, {"from": "human", "value": "And?"}]}, [USER, NO, MORE]),
    ],
)
def test_a_row_of_each_shape_becomes_a_pair(
    tmp_path: Path, row: dict[str, Any], messages: list[dict[str, str]]
) -> None:
    read = read_pairs(write(tmp_path, row))
    file = "pairs.jsonl"
    assert read.pairs == [Pair(problem_id(messages), 0, messages, "Hello.", "No.", None, None, file, file)]
    assert (read.rows, read.dropped) == (1, {})


def test_of_paired_stack_exchange_answers_j_is_the_better(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, STACK | {"qid": 3, "date": "2010/01/01"})).pairs
    assert pair.messages == [{"role": "user", "content": "Question: How?\n\nAnswer: "}]
    assert texts(pair) == ("So.", "Why?")


def test_the_texts_are_kept_to_the_letter(tmp_path: Path) -> None:
    (pair,) = read_pairs(write(tmp_path, {"prompt": " Hi! \n", "chosen": "\n a  b", "rejected": "ab "})).pairs
    assert (pair.messages[0]["content"], *texts(pair)) == (" Hi! \n", "\n a  b", "ab ")


def test_an_array_of_mixed_shapes_is_read_and_survives_storage(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([SHAREGPT, STACK, {"prompt": "Hm?", **SIDES}], indent=1))
    pairs = read_pairs(path).pairs
    assert [texts(pair) for pair in pairs] == [("Hello.", "No."), ("So.", "Why?"), ("Hello.", "No.")]
    write_rows(Pair, tmp_path / "pairs.parquet", pairs)
    assert list(read_rows(Pair, tmp_path / "pairs.parquet")) == pairs


def test_the_pairs_of_one_prompt_are_numbered(tmp_path: Path) -> None:
    prompts = ["Hi!", "Bye!", "hi!", "Hi!", "Bye!"]
    rows = [{"prompt": prompt, "chosen": f"Yes, {n}.", "rejected": "No."} for n, prompt in enumerate(prompts)]
    pairs = read_pairs(write(tmp_path, *rows)).pairs
    assert [pair.index for pair in pairs] == [0, 0, 1, 2, 1]
    assert len({(pair.problem_id, pair.index) for pair in pairs}) == 5


def test_equal_sides_and_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    row = {"prompt": "Hi!", **SIDES}
    rows = [
        row | {"chosen": "No."},
        row | {"chosen": " No.\n"},
        {"prompt": "Hi!", "chosen": [USER, NO], "rejected": [USER, NO]},
        row,
        {"prompt": [USER], "chosen": [USER, HELLO], "rejected": [USER, NO]},
        row | {"prompt": "Bye!"},
        row | {"chosen": "Hello"},
        {"prompt": "Hi!", "chosen": "No.", "rejected": "Hello."},
    ]
    read = read_pairs(write(tmp_path, *rows))
    assert (read.rows, read.dropped) == (8, {"equal_sides": 3, "duplicate": 1})
    assert [(p.messages[0]["content"], p.index, *texts(p)) for p in read.pairs] == [
        ("Hi!", 0, "Hello.", "No."),
        ("Bye!", 0, "Hello.", "No."),
        ("Hi!", 1, "Hello", "No."),
        ("Hi!", 2, "No.", "Hello."),
    ]


def test_the_same_sides_under_another_system_message_are_another_pair(tmp_path: Path) -> None:
    first, second = read_pairs(write(tmp_path, SHAREGPT, SHAREGPT | {"system": "Be kind."})).pairs
    assert replace(second, problem_id=first.problem_id, messages=first.messages) == first
    assert second.problem_id != first.problem_id


GAPS: list[Any] = [None, "", " \n", [], {}, 17, True]
ABSENT = [
    pytest.param(
        {name: given for name, given in row.items() if name != field} | gap,
        [f"no {field!r} (" + (f"{field} is {gap[field]!r})" if gap else "fields "), "remove the row"],
        id=f"{shape}-{field}-{gap.get(field, 'absent')!r}",
    )
    for shape, row in (("prompted", {"prompt": "Hi!", **SIDES}), ("stack", STACK), ("sharegpt", SHAREGPT))
    for field in row
    for gap in ({}, *({field: value} for value in GAPS))
    # Without its conversations, ShareGPT's row is as near to a prompt with two sides.
    if gap or field != "conversations"
]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        *ABSENT,
        ({}, ["no 'prompt' (fields none)"]),
        ({"text": "Hi!"}, ["no 'prompt' (fields 'text')"]),
        (
            SIDES,
            [
                "no 'prompt' (fields 'chosen', 'rejected')",
                "Every row needs prompt and chosen and rejected",
            ],
        ),
        ({"chosen": GPT_HELLO, "rejected": GPT_NO}, ["no 'prompt'"]),
        ({"chosen": [HELLO, NO], "rejected": [HELLO, HELLO]}, ["'chosen' ends in a turn of the assistant"]),
        ({"prompt": [SYSTEM], **SIDES}, ["the prompt in 'prompt' ends in a turn of the system", "a user turn"]),
        ({"prompt": [USER, HELLO], **SIDES}, ["the prompt in 'prompt' ends in a turn of the assistant"]),
        (SHAREGPT | {"conversations": [HUMAN, GPT_NO]}, ["'conversations' ends in a turn of the assistant"]),
        ({"prompt": [USER, SYSTEM], **SIDES}, ["turn 2 of 'prompt' is a system message"]),
        ({"prompt": [USER | {"content": ""}], **SIDES}, ["turn 1 of 'prompt': no 'content' (content is '')"]),
        (
            {"prompt": "Hi!", "chosen": [HELLO | {"content": " "}], "rejected": [NO]},
            ["turn 1 of 'chosen': no 'content'"],
        ),
        ({"prompt": "Hi!", "chosen": [HELLO], "rejected": [NO | {"content": None}]}, ["turn 1 of 'rejected': no"]),
        ({"prompt": "Hi!", "chosen": ["Hello."], "rejected": [NO]}, ["turn 1 of 'chosen' is 'Hello.'"]),
        ({"prompt": [HUMAN | {"from": 3}], **SIDES}, ["turn 1 of 'prompt' has an unknown 'from' (from is 3)"]),
        (
            SHAREGPT | {"conversations": [HUMAN | {"from": "king"}]},
            [
                "turn 1 of 'conversations' has an unknown 'from'",
                "Known roles: 'system', 'user', 'assistant', 'human', 'gpt'",
            ],
        ),
        (SHAREGPT | {"chosen": {"from": "gpt"}}, ["turn 1 of 'chosen': no 'value' (fields 'from')"]),
        (SHAREGPT | {"rejected": HUMAN}, ["'rejected' holds user.", "exactly one assistant message"]),
        (SHAREGPT | {"system": ["Be kind."]}, ["no 'system' (system is ['Be kind.'])"]),
        (
            SHAREGPT | {"system": "Be kind.", "conversations": [{"from": "system", "value": "Be rude."}, HUMAN]},
            ["both system messages", "Keep one"],
        ),
        ({"prompt": [USER], "chosen": [USER], "rejected": [NO]}, ["'chosen' holds user."]),
        (
            {"prompt": [USER], "chosen": [HELLO, MORE, NO], "rejected": [NO]},
            ["'chosen' holds assistant → user → assistant.", "exactly one assistant message", "into 'prompt'"],
        ),
        ({"prompt": [USER], "chosen": [HELLO], "rejected": [NO, NO]}, ["'rejected' holds assistant → assistant."]),
        (
            {"prompt": "Hi!", "chosen": [USER, HELLO, MORE, NO], "rejected": [USER, NO]},
            ["'chosen' holds assistant → user → assistant."],
        ),
        ({"prompt": "Hi!", "chosen": [USER, HELLO], "rejected": [MORE, NO]}, ["'chosen' holds user → assistant."]),
        # Sides that begin with the turns of another prompt.
        ({"prompt": "Bye!", "chosen": [USER, HELLO], "rejected": [USER, NO]}, ["'chosen' holds user → assistant."]),
        (
            {"prompt": "Hi!", "chosen": [USER, HELLO, NO], "rejected": [USER, HELLO, HELLO]},
            ["the prompt in 'prompt' ends in a turn of the assistant"],
        ),
    ],
)
def test_a_row_that_is_no_pair_is_refused_naming_line_and_field(
    tmp_path: Path, row: dict[str, Any], says: list[str]
) -> None:
    path = write(tmp_path, {"prompt": "Well?", **SIDES}, row)
    with pytest.raises(DataFileError) as refused:
        read_pairs(path)
    for words in (f"{path}, line 2", *says):
        assert words in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("pairs.jsonl", "", ["is empty", "one pair per row"]),
        ("pairs.jsonl", "\n\n", ["is empty"]),
        ("pairs.json", "[]", ["is empty"]),
        ("pairs.jsonl", '{"prompt": "Hi!"', ["line 1: malformed JSON"]),
        ("pairs.jsonl", "[]", ["is empty"]),
        ("pairs.json", '[{"prompt": "Hi!", "chosen": "a", "rejected": "b"}, 3]', ["row 2: int is not a JSON object"]),
        (
            "pairs.json",
            '[{"prompt": "Hi!", "chosen": "a"}]',
            ["row 1: No format has the columns 'prompt', 'chosen'", "also needs 'rejected'"],
        ),
        (
            "pairs.jsonl",
            '{"prompt": "Hi!", "chosen": "a", "rejected": "a"}\n{"prompt": "Hm?", "chosen": "b c", "rejected": "b  c"}',
            ["equal in all of its 2 rows", "nothing can be learned", "Check that"],
        ),
    ],
)
def test_a_file_without_a_usable_pair_is_refused(tmp_path: Path, name: str, content: str, says: list[str]) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataFileError) as refused:
        read_pairs(path)
    for words in (str(path), *says):
        assert words in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="There is no file"):
        read_pairs(tmp_path / "absent.jsonl")
