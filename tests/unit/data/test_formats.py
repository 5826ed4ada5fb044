"""Every format is told by its columns, and its rows become records; rows that cannot be used say why."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.formats import FORMATS, FormatError, RowError, Use, detect, named, records
from data.formats.record import assistant, user

Row = dict[str, Any]
SYSTEM = {"role": "system", "content": "Be brief."}
ASKED, SAID, AGAIN = user("Hi?"), assistant("Hello."), user("And?")
FROM = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}, {"from": "human", "value": "And?"}
TREE = {
    "message_tree_id": "a",
    "prompt": {
        "role": "prompter",
        "text": "Hi?",
        "replies": [
            {"role": "assistant", "text": "No.", "rank": 2, "replies": []},
            {
                "role": "assistant",
                "text": "Hello.",
                "rank": 0,
                "replies": [
                    {
                        "role": "prompter",
                        "text": "And?",
                        "replies": [{"role": "assistant", "text": "Bye.", "rank": None}],
                    }
                ],
            },
            {"role": "assistant", "text": "Hm.", "rank": 1},
        ],
    },
}
SHP = {"history": "Hi?", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_ratio": 3.0}
APPS = {
    "question": "Add.",
    "input_output": '{"inputs": ["1 2"], "outputs": ["3"]}',
    "solutions": '["print(3)"]',
    "starter_code": "",
    "difficulty": "introductory",
}
HUMAN_EVAL = {"task_id": "0", "prompt": "def f():\n", "test": "def check(f): ...", "entry_point": "f"}
MBPP = {"text": "Add.", "code": "def add(): ...", "test_list": ["assert add() == 1"], "test_setup_code": ""}
OWN = {"id": "a", "messages": [SYSTEM, ASKED], "reference": "2", "response": None, "source": "b", "split": "test"}

Expected = tuple[list[dict[str, str]], str | None, str | None]
READ: list[tuple[str, Use, Row, list[Expected]]] = [
    ("prompt-response", "demonstrations", {"prompt": "Hi?", "response": "Hello."}, [([ASKED], "Hello.", None)]),
    ("prompt-response", "demonstrations", {"prompt": "Hi?", "completion": "Hello."}, [([ASKED], "Hello.", None)]),
    (
        "alpaca",
        "demonstrations",
        {"instruction": "Greet.", "input": "", "output": "Hello."},
        [([user("Greet.")], "Hello.", None)],
    ),
    (
        "alpaca",
        "demonstrations",
        {
            "instruction": "翻译",
            "input": "你好",
            "output": "Hello.",
            "history": [["Hi?", "Hello."]],
            "system": "Be brief.",
        },
        [([SYSTEM, ASKED, SAID, user("翻译\n你好")], "Hello.", None)],
    ),
    (
        "dolly",
        "demonstrations",
        {"instruction": "Sum up.", "context": "A text.", "response": "Text.", "category": "qa"},
        [([user("Sum up.\nA text.")], "Text.", None)],
    ),
    (
        "self-instruct",
        "demonstrations",
        {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "0"}]},
        [([user("Add.\n1 1")], "2", None), ([user("Add.")], "0", None)],
    ),
    ("sharegpt", "demonstrations", {"conversations": [*FROM[:2]]}, [([ASKED], "Hello.", None)]),
    ("messages", "demonstrations", {"messages": [SYSTEM, ASKED, SAID]}, [([SYSTEM, ASKED], "Hello.", None)]),
    (
        "messages",
        "demonstrations",
        {"prompt": "Hi?", "prompt_id": "0", "messages": [ASKED, SAID, AGAIN, SAID]},
        [([ASKED, SAID, AGAIN], "Hello.", None)],
    ),
    ("ultrachat", "demonstrations", {"id": "0", "data": ["Hi?", "Hello."]}, [([ASKED], "Hello.", None)]),
    (
        "baize",
        "demonstrations",
        {"topic": "x", "input": "A conversation.\n[|Human|] Hi?\n[|AI|] Hello.\n[|Human|] "},
        [([ASKED], "Hello.", None)],
    ),
    ("passages", "passages", {"id": 1, "title": "Sky", "text": "It is blue."}, [([], "It is blue.", None)]),
    ("prompts", "prompts", {"prompt": [ASKED]}, [([ASKED], None, None)]),
    ("mt-bench", "prompts", {"question_id": 1, "turns": ["Hi?", "And?"]}, [([ASKED], None, None)]),
    ("preference", "pairs", {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}, [([ASKED], "Hello.", "No.")]),
    (
        "sharegpt-preference",
        "pairs",
        {"conversations": [FROM[0]], "chosen": FROM[1], "rejected": {"from": "gpt", "value": "No."}},
        [([ASKED], "Hello.", "No.")],
    ),
    (
        "hh-rlhf",
        "pairs",
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: And?\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: Hello.\n\nHuman: And?\n\nAssistant: No.",
        },
        [([ASKED, SAID, AGAIN], "Yes.", "No.")],
    ),
    (
        "alpaca-preference",
        "pairs",
        {"instruction": "Hi?", "input": "You!", "chosen": "Hello.", "rejected": "No."},
        [([user("Hi?\nYou!")], "Hello.", "No.")],
    ),
    (
        "openai-preference",
        "pairs",
        {
            "input": {"messages": [ASKED]},
            "preferred_output": [SAID],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
        [([ASKED], "Hello.", "No.")],
    ),
    (
        "implicit-preference",
        "pairs",
        {"chosen": [ASKED, SAID], "rejected": [ASKED, {"role": "assistant", "content": "No."}]},
        [([ASKED], "Hello.", "No.")],
    ),
    ("shp", "pairs", SHP, [([ASKED], "a", "b")]),
    ("shp", "pairs", SHP | {"labels": 0}, [([ASKED], "b", "a")]),
    (
        "stack-exchange",
        "pairs",
        {"qid": 1, "question": "Hi?", "response_j": "a", "response_k": "b"},
        [([user("Question: Hi?\n\nAnswer: ")], "a", "b")],
    ),
    (
        "oasst",
        "pairs",
        TREE,
        [([ASKED], "Hello.", "Hm."), ([ASKED], "Hello.", "No."), ([ASKED], "Hm.", "No.")],
    ),
    ("oasst", "demonstrations", TREE, [([ASKED, SAID, AGAIN], "Bye.", None)]),
    ("question-answer", "problems", {"question": "1 + 1?", "answer": 2}, [([user("1 + 1?")], "2", None)]),
    (
        "math",
        "problems",
        {"problem": "1 + 1?", "solution": "\\boxed{2}", "level": "Level 1", "type": "Algebra"},
        [([user("1 + 1?")], "\\boxed{2}", None)],
    ),
    ("prompt-answer", "problems", {"prompt": "1 + 1?", "answer": "2"}, [([user("1 + 1?")], "2", None)]),
    (
        "verl",
        "problems",
        {"prompt": [ASKED], "reward_model": {"ground_truth": "2"}, "extra_info": {"answer": "Hello."}},
        [([ASKED], "Hello.", None)],
    ),
    (
        "multiple-choice",
        "problems",
        {"question": "Which?", "choices": ["a", "b"], "answer": 1},
        [([user("Which?\n\nA. a\nB. b")], "B", None)],
    ),
    (
        "choices-in-columns",
        "problems",
        {"question": "Which?", "A": "a", "B": "b", "answer": "B"},
        [([user("Which?\n\nA. a\nB. b")], "B", None)],
    ),
    ("apps", "programs", APPS, [([user("Add.")], "print(3)", None)]),
    (
        "apps",
        "programs",
        APPS | {"solutions": "", "starter_code": "def add():"},
        [([user("Add.\n\ndef add():")], None, None)],
    ),
    (
        "humaneval",
        "programs",
        HUMAN_EVAL | {"canonical_solution": "  pass\n"},
        [([user("def f():\n")], "  pass\n", None)],
    ),
    (
        "mbpp",
        "programs",
        MBPP,
        [([user("Add.\nYour code should pass these tests:\n\nassert add() == 1")], "def add(): ...", None)],
    ),
    (
        "axolotl-preference",
        "pairs",
        {"messages": [ASKED], "chosen": assistant("Hello."), "rejected": assistant("No.")},
        [([ASKED], "Hello.", "No.")],
    ),
    ("prompt-tests", "programs", {"prompt": "Add.", "tests": ["assert 1"]}, [([user("Add.")], None, None)]),
    ("problem-rows", "problems", OWN, [([SYSTEM, ASKED], None, None)]),
    ("problem-rows", "demonstrations", OWN | {"response": "Hello."}, [([SYSTEM, ASKED], "Hello.", None)]),
    (
        "pair-rows",
        "pairs",
        {"problem_id": "a", "index": 0, "messages": [ASKED], "chosen": "Hello.", "rejected": "No."},
        [([ASKED], "Hello.", "No.")],
    ),
]


@pytest.mark.parametrize(("name", "use", "row", "expected"), READ)
def test_a_format_is_told_by_its_columns_and_read(name: str, use: Use, row: Row, expected: list[Expected]) -> None:
    found = detect(row)
    assert found.format.name == name
    assert use in found.format.uses
    read = list(records(found.format, row, use))
    assert [(record.messages, record.response, record.rejected) for record in read] == expected


@pytest.mark.parametrize("row", [row for name, _, row, _ in READ if name != "passages"])
def test_every_format_that_has_prompts_serves_as_prompts(row: Row) -> None:
    known = detect(row).format
    assert "prompts" in known.uses
    assert {record.messages[-1]["role"] for record in records(known, row, "prompts")} == {"user"}


def test_every_format_is_in_the_table() -> None:
    assert {name for name, *_ in READ} == {known.name for known in FORMATS}


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "1 + 1?", "answer": "two\n#### 2"}, "two\n#### 2"),
        (APPS, {"kind": "apps", "inputs": ["1 2"], "outputs": ["3"]}),
        (HUMAN_EVAL, {"kind": "humaneval", "test": "def check(f): ...", "entry_point": "f", "prompt": "def f():\n"}),
        (MBPP, {"kind": "mbpp", "setup": "", "asserts": ["assert add() == 1"]}),
    ],
)
def test_the_reference_holds_what_a_verifier_needs(row: Row, reference: Any) -> None:
    found = detect(row).format
    (record,) = records(found, row, found.uses[0])
    assert record.reference == reference or json.loads(record.reference or "") == reference


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "Greet.", "output": ""}, "empty output"),
        ({"instruction": None, "output": "Hello."}, "no instruction"),
        ({"instruction": "Greet.", "output": 3}, "not text in output"),
        ({"instruction": "Greet.", "output": "Hello.", "history": [["Hi?"]]}, "bad history"),
        ({"instruction": "Add.", "instances": []}, "no instances"),
        ({"instruction": "Add.", "instances": ["2"]}, "not an instance"),
        ({"conversations": [FROM[0] | {"from": "king"}, FROM[1]]}, "unknown role"),
        ({"conversations": [*FROM]}, "no answer at the end"),
        ({"messages": [ASKED, SYSTEM, SAID]}, "late system turn"),
        ({"messages": [SYSTEM, ASKED, SAID], "system": "Be kind."}, "two system turns"),
        ({"messages": [ASKED, SAID | {"content": " "}]}, "empty turn"),
        ({"messages": [ASKED, "Hello."]}, "not a message"),
        ({"data": ["Hi?", None]}, "empty turn"),
        ({"input": "[|Human|] Hi?\n[|AI|]\n[|Human|] And?\n[|AI|] Bye."}, "empty turn"),
        ({"turns": [3]}, "empty turn"),
        (OWN | {"messages": []}, "no messages"),
        (OWN | {"split": "dev"}, "unknown split"),
        ({"prompt": "Hi?", "chosen": [ASKED, SAID, SAID], "rejected": [ASKED, AGAIN]}, "not one answer"),
        ({"prompt": [ASKED, SAID], "chosen": "a", "rejected": "b"}, "prompt ends in an answer"),
        (
            {"chosen": "\n\nHuman: Hi?\n\nAssistant: a", "rejected": "\n\nHuman: Ho?\n\nAssistant: b"},
            "different prompts",
        ),
        ({"chosen": "\n\nHuman: Hi?", "rejected": "\n\nHuman: Hi?"}, "no transcript"),
        (SHP | {"score_ratio": 1.2}, "scores too near"),
        (SHP | {"labels": None}, "no labels"),
        ({"message_tree_id": "a", "prompt": {"role": "king", "text": "Hi?"}}, "unknown role"),
        (APPS | {"input_output": "{"}, "malformed input_output"),
        (APPS | {"input_output": "{}"}, "no tests"),
        (APPS | {"input_output": '{"inputs": ["1", "2"], "outputs": ["3"]}'}, "unequal tests"),
        (APPS | {"input_output": '{"inputs": "1", "outputs": "3"}'}, "no tests"),
        (MBPP | {"test_list": [1]}, "not texts in test_list"),
    ],
)
def test_a_row_that_cannot_be_used_says_why_in_words_that_can_be_counted(row: Row, reason: str) -> None:
    found = detect(row).format
    with pytest.raises(RowError) as refused:
        list(records(found, row, found.uses[0]))
    assert refused.value.reason == reason
    assert str(refused.value)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "text", "replies", "rank", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from(READ), st.data())
def test_whatever_a_field_holds_a_row_is_read_or_says_why_not(case: Any, data: Any) -> None:
    name, use, row, _ = case
    known = named(name)
    field = data.draw(st.sampled_from([*row, *known.optional.split()]))
    damaged = {**row, field: data.draw(ANY)}
    with suppress(RowError):
        for record in records(known, damaged, use):
            assert record.messages or use == "passages"
            assert all(isinstance(turn["content"], str) for turn in record.messages)


def test_columns_of_no_format_are_answered_with_the_nearest_and_what_it_lacks() -> None:
    with pytest.raises(FormatError, match=r"No format has the columns 'Frage', 'answer'.*nearest is question-answer"):
        detect({"Frage": "1 + 1?", "answer": "2"})
    with pytest.raises(FormatError, match=r"no format 'alpacca'\. Known formats: .*alpaca"):
        named("alpacca")
