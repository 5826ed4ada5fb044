"""Rows as people publish them, each with what it has to say: prompt, gold answer, rejected one, reference."""

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.formats import Use
from data.formats.record import assistant, user
from data.prepare.prepare import prepare
from data.prepare.problems import read_problems
from data.prepare.reading import Reading, Tally, read_records
from data.prepare.sources import DataFileError
from data.rewards.answer import has_answer
from data.rows import Problem
from data.storage import read_rows
from flows.commands.cli import main
from flows.sft import SFT, SFTTrainConfig
from tasks.datasets.problems import ProblemSource, note_further

Row = dict[str, Any]
Said = tuple[list[dict[str, str]], str | None, str | None, str | None]
SYSTEM = {"role": "system", "content": "Think."}
ASKED, SAID = user("Sky?"), assistant("Blue.")
NO = assistant("Green.")


def write(folder: Path, *rows: Row) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder: Path, use: Use, *rows: Row, **settings: Any) -> tuple[list[Said], Tally]:
    tally = Tally()
    records = read_records(Reading(write(folder, *rows), **settings), use, tally)
    return [(r.messages, r.response, r.rejected, r.reference) for _, r in records], tally


def refusal(folder: Path, use: Use, *rows: Row, **settings: Any) -> str:
    with pytest.raises(DataFileError) as refused:
        read(folder, use, *rows, **settings)
    return str(refused.value)


SUM = {"problem": "1+1?", "solution": "We add and get two."}
WORKED: list[tuple[Row, str | None, str]] = [
    (SUM | {"answer": "2"}, "We add and get two.", "2"),
    (SUM | {"answer": 2.0}, "We add and get two.", "2"),
    ({"problem": "1+1?", "solution": "", "answer": "2"}, None, "2"),
    ({"problem": "1+1?", "solution": None, "answer": "2"}, None, "2"),
    ({"problem": "1+1?", "answer": "2"}, "2", "2"),
    ({"problem": "1+1?", "solution": "So \\boxed{2}"}, "So \\boxed{2}", "So \\boxed{2}"),
    ({"problem": "1+1?", "solution": "So \\boxed{2}", "answer": None}, "So \\boxed{2}", "So \\boxed{2}"),
    ({"problem": "1+1?", "generated_solution": "Two.", "expected_answer": "2"}, "Two.", "2"),
    ({"question": "1+1?", "solution": ["Two."], "final_answer": ["2"]}, "Two.", "2"),
    ({"question": "1+1?", "answer": "2", "response": "Two, says a model."}, "2", "2"),
    ({"prompt": "1+1?", "answer": "2", "response": "Two."}, "Two.", "2"),
    ({"question": "1+1?", "answer": "Two.\n#### 2"}, "Two.\n#### 2", "Two.\n#### 2"),
    ({"question": "1+1?", "answer": "We get two.", "final_answer": "2"}, "We get two.", "2"),
    ({"prompt": "1+1?", "answer": "We get two.", "ground_truth": 2}, "We get two.", "2"),
    ({"question": "1+1?", "answer": "2", "final_answer": ""}, "2", "2"),
    ({"prompt": [user("1+1?")], "solution": "$2$"}, "$2$", "$2$"),
    ({"prompt": [user("1+1?")], "answer": "2"}, "2", "2"),
    ({"prompt": "1+1?", "completion": [assistant("Two.")], "answer": "2"}, "Two.", "2"),
    ({"messages": [user("1+1?"), assistant("Two.")], "answer": "2"}, "Two.", "2"),
    ({"messages": [user("1+1?")], "ground_truth": "2", "dataset": "sums"}, None, "2"),
    ({"conversations": [{"from": "human", "value": "1+1?"}], "answer": 2}, None, "2"),
    ({"instruction": "1+1?", "output": "Two.", "answer": "2"}, "Two.", "2"),
    ({"prompt": "1+1?", "reward_model": {"style": "rule", "ground_truth": "2"}}, None, "2"),
    ({"prompt": [user("1+1?")], "reward_model": {"ground_truth": '["2"]'}}, None, "2"),
    ({"prompt": [user("1+1?")], "reward_model": {"ground_truth": 2}, "extra_info": {"answer": "Two."}}, "Two.", "2"),
    ({"prompt": "1+1?", "reward_model": '{"ground_truth": "2"}', "extra_info": '{"answer": "Two."}'}, "Two.", "2"),
    ({"prompt": [{"type": "text", "text": "1+1?"}], "answer": "2"}, "2", "2"),
    ({"prompt": "1+1?", "completion": [{"type": "text", "text": "Two."}], "answer": "2"}, "Two.", "2"),
]


@pytest.mark.parametrize(("row", "response", "reference"), WORKED)
def test_a_bare_answer_is_the_reference_and_a_worked_one_the_gold(
    tmp_path: Path, row: Row, response: str | None, reference: str
) -> None:
    ((messages, gold, _, found),), _ = read(tmp_path, "problems", row)
    assert (messages, gold) == ([user("1+1?")], response)
    assert (found or gold) == reference


def test_where_some_solutions_are_empty_those_rows_teach_nothing_and_can_be_judged(tmp_path: Path) -> None:
    rows = SUM | {"answer": "2"}, SUM | {"solution": "", "answer": "2"}
    assert [said[1] for said in read(tmp_path, "problems", *rows)[0]] == ["We add and get two.", None]
    assert "line 2: no 'solution' to learn from" in refusal(tmp_path, "demonstrations", *rows)
    found, tally = read(tmp_path, "demonstrations", *rows, drop=True)
    assert (len(found), dict(tally.dropped)) == (1, {"empty solution": 1})


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("We add the numbers and get two.", False),
        ("We add 1 to itself.", False),
        ("Nous additionnons et obtenons deux.", False),
        ("我们把两个数相加得到二。", False),
        ("first you add one to one and then you have got two of them", False),
        ("We add and get $2$.", False),
        ("We add: the answer is 2.", True),
        ("We add and get \\boxed{2}.", True),
        ("2", True),
        ("Paris", True),
        ("New York City", True),
        ("18 apples.", True),
        ("\\text{even and positive numbers}", True),
        ("$\\frac{1}{2}$", True),
    ],
)
def test_a_sentence_is_no_bare_answer(tmp_path: Path, text: str, bare: bool) -> None:
    reading = Reading(write(tmp_path, {"problem": "1+1?", "solution": text}), drop=True)
    assert len(list(read_problems(reading, None, has_answer, Tally()))) == bare


PAIRS: list[tuple[Row, list[dict[str, str]]]] = [
    ({"chosen": [ASKED, SAID], "rejected": [ASKED, NO]}, [ASKED]),
    ({"chosen": [SYSTEM, ASKED, SAID], "rejected": [SYSTEM, ASKED, NO], "score_chosen": 8.0}, [SYSTEM, ASKED]),
    ({"chosen": [ASKED, NO, ASKED, SAID], "rejected": [ASKED, NO, ASKED, NO]}, [ASKED, NO, ASKED]),
    (
        {"input": {"messages": [ASKED], "tools": []}, "preferred_output": [SAID], "non_preferred_output": [NO]},
        [ASKED],
    ),
    (
        {"input": {"messages": [SYSTEM, ASKED]}, "preferred_output": [SAID], "non_preferred_output": [NO]},
        [SYSTEM, ASKED],
    ),
    ({"instruction": "Name it.", "input": "Sky", "chosen": "Blue.", "rejected": "Green."}, [user("Name it.\nSky")]),
    (
        {"instruction": "Sky?", "input": "", "system": "Think.", "chosen": "Blue.", "rejected": "Green."},
        [SYSTEM, ASKED],
    ),
    (
        {"instruction": "And?", "history": [["Sky?", "Blue."]], "chosen": "Blue.", "rejected": "Green."},
        [ASKED, SAID, user("And?")],
    ),
    ({"prompt": [{"from": "human", "value": "Sky?"}], "chosen": "Blue.", "rejected": "Green."}, [ASKED]),
    ({"messages": [SYSTEM, ASKED], "chosen": SAID, "rejected": NO}, [SYSTEM, ASKED]),
    ({"messages": [ASKED, SAID], "prompt": "Sky?", "chosen": [ASKED, SAID], "rejected": [ASKED, NO]}, [ASKED]),
    ({"messages": [ASKED, SAID], "chosen": [ASKED, SAID], "rejected": [ASKED, NO]}, [ASKED]),
]


@pytest.mark.parametrize(("row", "messages"), PAIRS)
def test_pairs_of_each_kind(tmp_path: Path, row: Row, messages: list[dict[str, str]]) -> None:
    assert read(tmp_path, "pairs", row)[0] == [(messages, "Blue.", "Green.", None)]


@pytest.mark.parametrize("columns", [{}, {"prompt": "instruction"}])
@pytest.mark.parametrize(
    ("use", "answers"), [("pairs", {"chosen": "house", "rejected": "tree"}), ("demonstrations", {"output": "house"})]
)
def test_an_instruction_keeps_its_input_also_when_it_is_mapped(
    tmp_path: Path, use: Use, answers: Row, columns: dict[str, str]
) -> None:
    row = {"instruction": "Translate to English.", "input": "Haus", **answers}
    ((messages, *_),), _ = read(tmp_path, use, row, columns=columns)
    assert messages == [user("Translate to English.\nHaus")]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"input": "Sky?", "output": "Blue."}, {"instruction": "input"}),
        ({"system": "Sky?", "output": "Blue."}, {"instruction": "system"}),
        ({"instruction": "Sky?", "output": "Blue."}, {"prompt": "instruction"}),
    ],
)
def test_a_column_that_is_mapped_is_read_once(tmp_path: Path, row: Row, columns: dict[str, str]) -> None:
    assert read(tmp_path, "demonstrations", row, columns=columns)[0] == [([ASKED], "Blue.", None, None)]


def test_columns_of_later_rows_that_hold_something_are_noticed(tmp_path: Path) -> None:
    row: Row = {"prompt": "Sky?", "response": "Blue.", "id": 1}
    rows = [row, row | {"context": "At night."}, row | {"context": ""}, row | {"label": True, "tools": []}]
    _, tally = read(tmp_path, "demonstrations", *rows)
    assert dict(tally.noticed) == {"not read, and not a column of the first row: 'context'": 1}


TEXT = {"type": "text", "text": "Blue."}
TURNS: list[tuple[list[Any], list[dict[str, str]], str]] = [
    ([ASKED, {"role": "assistant", "content": [TEXT]}], [ASKED], "Blue."),
    ([ASKED, {"role": "assistant", "content": TEXT}], [ASKED], "Blue."),
    ([ASKED, {"role": "assistant", "content": ["Blue."]}], [ASKED], "Blue."),
    ([ASKED, {"role": "assistant", "content": [{"text": "Blue."}]}], [ASKED], "Blue."),
    ([ASKED, {"role": "assistant", "content": [TEXT, TEXT]}], [ASKED], "Blue.\nBlue."),
    ([ASKED, {"role": "assistant", "content": [TEXT | {"image_url": None}]}], [ASKED], "Blue."),
    ([{"role": "user", "content": [{"type": "input_text", "text": "Sky?"}]}, SAID], [ASKED], "Blue."),
    ([{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue."}], [ASKED], "Blue."),
    ([{"from": "user", "value": "Sky?"}, SAID], [ASKED], "Blue."),
    ([{"role": "Human", "content": "Sky?"}, {"role": "model", "content": "Blue."}], [ASKED], "Blue."),
    ([{"role": "developer", "content": "Think."}, ASKED, SAID], [SYSTEM, ASKED], "Blue."),
    ([ASKED | {"from": None, "value": None}, SAID | {"tool_calls": [], "weight": None}], [ASKED], "Blue."),
]


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize(("turns", "messages", "response"), TURNS)
def test_turns_in_every_dialect(
    tmp_path: Path, column: str, turns: list[Any], messages: list[dict[str, str]], response: str
) -> None:
    found, tally = read(tmp_path, "demonstrations", {column: turns})
    assert [said[:2] for said in found] == [(messages, response)]
    assert not tally.noticed


def test_a_table_of_columns_is_a_list_of_messages(tmp_path: Path) -> None:
    row = {"messages": {"role": ["user", "assistant"], "content": ["Sky?", "Blue."]}}
    assert read(tmp_path, "demonstrations", row)[0] == [([ASKED], "Blue.", None, None)]


def test_messages_as_a_text_of_json_are_messages(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"messages": json.dumps([ASKED, SAID])},
        {"prompt": json.dumps([ASKED]), "completion": json.dumps([SAID])},
    ]
    assert [said[:2] for said in read(tmp_path, "demonstrations", *rows)[0]] == [([ASKED], "Blue.")] * 2
    data = '[{"role": "admin", "content": "all"}]'
    assert read(tmp_path, "demonstrations", {"prompt": "Rights?", "completion": data})[0][0][1] == data


@pytest.mark.parametrize(
    "row", [{"messages": str([ASKED, SAID])}, {"prompt": str([ASKED]), "chosen": "Blue.", "rejected": "Green."}]
)
def test_messages_as_python_writes_them_are_refused(tmp_path: Path, row: Row) -> None:
    assert "It holds messages in Python's notation. Write them as JSON" in refusal(
        tmp_path, "pairs" if "chosen" in row else "demonstrations", row
    )


CALL = [{"id": "a1", "type": "function", "function": {"name": "w", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("turn", "reason", "says"),
    [
        ({"role": "assistant", "content": None, "tool_calls": CALL}, "tool call", "turn 2 of 'messages' calls a tool"),
        (SAID | {"tool_calls": CALL}, "tool call", "calls a tool (tool_calls is"),
        (SAID | {"function_call": {"name": "w"}}, "tool call", "calls a tool (function_call is"),
        ({"role": "tool", "content": "4 C"}, "tool turn", "is a tool turn (role is 'tool')"),
        ({"from": "observation", "value": "4 C"}, "tool turn", "is a tool turn (from is 'observation')"),
        ({"from": "function_call", "value": "{}"}, "tool turn", "(from is 'function_call')"),
        ({"role": "function", "content": "4 C"}, "tool turn", "(role is 'function')"),
        ({"role": "assistant", "content": None}, "null content", "no 'content' (content is None)"),
        ({"role": "assistant", "content": []}, "empty turn", "no 'content' (content is [])"),
        (
            {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "part that is no text: 'image_url'",
            "is of type 'image_url'",
        ),
        ({"role": "assistant", "content": [{"type": "image"}, TEXT]}, "part that is no text: 'image'", "Only text"),
        (SAID | {"weight": 0.5}, "unknown weight", "has the weight 0.5. It must be 0 or 1"),
        (SAID | {"train": "false"}, "unknown weight", "has the train 'false'. It must be 0 or 1"),
    ],
)
def test_a_turn_that_cannot_be_used_is_named_as_what_it_is(tmp_path: Path, turn: Row, reason: str, says: str) -> None:
    rows = {"messages": [ASKED, turn]}, {"messages": [ASKED, SAID]}
    assert says in refusal(tmp_path, "demonstrations", *rows)
    found, tally = read(tmp_path, "demonstrations", *rows, drop=True)
    assert (len(found), dict(tally.dropped)) == (1, {reason: 1})


THOUGHT = "not read of a message: {!r}, which reasoning: keep puts in front of its text"


@pytest.mark.parametrize(
    ("extra", "noticed"),
    [
        ({"reasoning_content": "Hm."}, THOUGHT.format("reasoning_content")),
        ({"thinking": "Hm."}, THOUGHT.format("thinking")),
        ({"reasoning": "Hm."}, THOUGHT.format("reasoning")),
        ({"content": [{"type": "thinking", "thinking": "Hm."}, TEXT]}, THOUGHT.format("thinking")),
    ],
)
def test_reasoning_is_left_out_with_a_count_or_kept(tmp_path: Path, extra: Row, noticed: str) -> None:
    row = {"messages": [ASKED, SAID | extra]}
    found, tally = read(tmp_path, "demonstrations", row, row)
    assert [said[1] for said in found] == ["Blue."] * 2
    assert dict(tally.noticed) == {noticed: 2}
    found, tally = read(tmp_path, "demonstrations", row, reasoning=True)
    assert [said[1] for said in found] == ["<think>\nHm.\n</think>\n\nBlue."]
    assert not tally.noticed
    sides = {"prompt": "Sky?", "chosen": [SAID | extra], "rejected": [NO]}
    assert read(tmp_path, "pairs", sides, reasoning=True)[0][0][1] == "<think>\nHm.\n</think>\n\nBlue."


def test_reasoning_that_an_answer_repeats_is_kept_once(tmp_path: Path) -> None:
    row = {"messages": [ASKED, {"role": "assistant", "content": "<think>Hm.</think>Blue.", "reasoning": "Hm."}]}
    found, tally = read(tmp_path, "demonstrations", row, reasoning=True)
    assert (found[0][1], dict(tally.noticed)) == ("<think>Hm.</think>Blue.", {})


def test_reasoning_and_tools_of_a_nested_prompt_are_not_lost(tmp_path: Path) -> None:
    asked = {"messages": [ASKED, NO | {"thinking": "Hm."}, ASKED], "tools": [{"type": "function"}]}
    row = {"input": asked, "preferred_output": [SAID], "non_preferred_output": [NO]}
    tools = "not read of a message: 'tools'"
    assert dict(read(tmp_path, "pairs", row)[1].noticed) == {tools: 1, THOUGHT.format("thinking"): 1}
    found, tally = read(tmp_path, "pairs", row, reasoning=True)
    assert found[0][0][1]["content"] == "<think>\nHm.\n</think>\n\nGreen."
    assert dict(tally.noticed) == {tools: 1}


def test_worked_examples_show_reasoning_where_it_is_kept(tmp_path: Path) -> None:
    few_shot = write(tmp_path, {"messages": [ASKED, SAID | {"thinking": "Hm."}]})
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "2"}) + "\n")
    source = ProblemSource(problems=tmp_path / "p.jsonl", few_shot=few_shot, reasoning="keep")
    prepare(source.preparation(0), tmp_path, note_further)
    (problem,) = (row for path in tmp_path.glob("*.parquet") for row in read_rows(Problem, path))
    assert [turn["content"] for turn in problem.messages] == ["Sky?", "<think>\nHm.\n</think>\n\nBlue.", "1+1?"]


def test_other_keys_of_messages_that_hold_something_are_noticed(tmp_path: Path) -> None:
    row = {"messages": [ASKED | {"name": "Ann", "id": ""}, SAID | {"refusal": None, "weight": 1}]}
    assert dict(read(tmp_path, "demonstrations", row)[1].noticed) == {"not read of a message: 'name'": 1}
    pair = {"prompt": [ASKED], "chosen": [SAID | {"weight": 0}], "rejected": [NO]}
    assert dict(read(tmp_path, "pairs", pair)[1].noticed) == {"not read of a message: 'weight'": 1}


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}])
def test_an_answer_of_weight_0_is_not_learned(tmp_path: Path, mark: Row) -> None:
    rows = (
        {"messages": [ASKED, NO | mark]},
        {"messages": [ASKED, SAID, ASKED, NO | mark]},
        {"messages": [ASKED | mark, NO | mark, ASKED, SAID]},
    )
    found, tally = read(tmp_path, "demonstrations", *rows)
    assert [said[:2] for said in found] == [([ASKED], "Blue."), ([ASKED, NO, ASKED], "Blue.")]
    assert dict(tally.dropped) == {"weight 0": 1}
    assert [said[:18] for said in tally.noticed] == ["an answer before t"]
    says = "line 3: an answer before the last has weight 0, but train.loss_on: all would learn it"
    assert says in refusal(tmp_path, "demonstrations", *rows, every_answer=True)


WEIGHTED = NO | {"weight": 0}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "completion": [WEIGHTED]},
        {"prompt": "Sky?", "response": WEIGHTED},
        {"prompt": [ASKED], "chosen": [WEIGHTED], "rejected": [SAID]},
        {"chosen": [ASKED, WEIGHTED], "rejected": [ASKED, SAID]},
        {"conversations": [ASKED], "chosen": WEIGHTED, "rejected": SAID},
        {"input": {"messages": [ASKED]}, "preferred_output": [WEIGHTED], "non_preferred_output": [SAID]},
    ],
)
def test_nor_is_one_that_stands_apart_from_its_prompt(tmp_path: Path, row: Row) -> None:
    assert read(tmp_path, "demonstrations", row)[1].dropped == {"weight 0": 1}
    assert len(read(tmp_path, "prompts", row)[0]) == 1


def test_nor_are_those_in_a_prompt(tmp_path: Path) -> None:
    row = {"prompt": [ASKED, WEIGHTED, ASKED], "completion": [SAID]}
    assert [said[:18] for said in read(tmp_path, "demonstrations", row)[1].noticed] == ["an answer before t"]
    assert "train.loss_on: all would learn it" in refusal(tmp_path, "demonstrations", row, every_answer=True)


def test_only_what_is_trained_on_with_every_answer_is_held_to_weights(tmp_path: Path) -> None:
    path, test = tmp_path / "a.jsonl", tmp_path / "t.jsonl"
    given = {"problems": path, "test": test, "run": "x"}
    config = SFT(**given, train=SFTTrainConfig(loss_on="all"))
    assert config.reading(path).every_answer
    assert not config.reading(test).every_answer
    assert not SFT(**given).reading(path).every_answer
    assert not ProblemSource(problems=path).reading(path).every_answer


@pytest.mark.parametrize(
    ("row", "liked"),
    [
        ({"prompt": "Sky?", "completion": "Blue.", "label": True}, True),
        ({"prompt": "Sky?", "completion": "Blue.", "label": False}, False),
        ({"prompt": "Sky?", "completion": "Blue.", "label": "False"}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": 0}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": 0.0}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": "0.0"}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": "undesirable"}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": "Bad"}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": "good"}, True),
        ({"prompt": "Sky?", "response": "Blue.", "label": -1}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": math.nan}, True),
        ({"prompt": "Sky?", "response": "Blue.", "desirable": False}, False),
        ({"prompt": "Sky?", "response": "Blue.", "label": "colour"}, True),
        ({"prompt": "Sky?", "response": "Blue.", "label": None}, True),
        ({"prompt": [ASKED], "completion": [SAID], "label": False}, False),
        ({"messages": [ASKED, SAID], "label": False}, False),
        ({"instruction": "Sky?", "input": "", "output": "Blue.", "kto_tag": False}, False),
        ({"instruction": "Sky?", "input": "", "output": "Blue.", "kto_tag": True}, True),
    ],
)
def test_an_answer_that_is_not_liked_is_no_gold_answer(tmp_path: Path, row: Row, liked: bool) -> None:
    found, tally = read(tmp_path, "demonstrations", row)
    assert found == ([([ASKED], "Blue.", None, None)] if liked else [])
    assert dict(tally.dropped) == ({} if liked else {"disliked answer": 1})
    assert len(read(tmp_path, "prompts", row)[0]) == 1


@pytest.mark.parametrize(("label", "clear"), [(True, True), ("yes", True), ("", True), (None, True), ("colour", False)])
def test_a_label_that_is_not_understood_is_noticed(tmp_path: Path, label: Any, clear: bool) -> None:
    _, tally = read(tmp_path, "demonstrations", {"prompt": "Sky?", "completion": "Blue.", "label": label})
    assert (list(tally.noticed) == []) == clear


def test_an_answer_to_be_judged_that_is_not_liked_is_none_either(tmp_path: Path) -> None:
    rows = [{"prompt": "Sky?", "answer": "Blue.", "label": label} for label in (False, True)]
    found, tally = read(tmp_path, "problems", *rows)
    assert (len(found), dict(tally.dropped)) == (1, {"disliked answer": 1})


@pytest.mark.parametrize("options", [[True, False], ["NaN", "0"]])
def test_an_option_may_be_what_elsewhere_is_an_index_or_no_answer(tmp_path: Path, options: list[Any]) -> None:
    row = {"question": "Which?", "choices": options, "answer": options[0]}
    assert read(tmp_path, "problems", row)[0][0][3] == "A"


OPTIONS = "Which?\n\nA. 1\nB. b"


@pytest.mark.parametrize(
    ("row", "letter"),
    [
        ({"choices": ["1", "b"], "answer": 1}, "B"),
        ({"choices": ["1", "b"], "answer": 1.0}, "B"),
        ({"choices": [1, "b"], "answer": "1"}, "A"),
        ({"choices": ["1", "b"], "answer": "B"}, "B"),
        ({"choices": ["1", "b"], "answer": "b"}, "B"),
        ({"choices": ["1", "b"], "answer": "(A)"}, "A"),
        ({"choices": ["1", "b"], "answer": "B)"}, "B"),
        ({"choices": ["1", "b"], "answer": "B."}, "B"),
        ({"choices": ["1", "b"], "answer": "B. b"}, "B"),
        ({"options": ["1", "b"], "answer": "A", "answer_index": 0}, "A"),
        ({"choices": {"text": ["1", "b"], "label": ["1", "2"]}, "answerKey": "2"}, "B"),
        ({"choices": {"text": ["1", "b"], "label": ["A", "B"]}, "answerKey": "A"}, "A"),
        ({"choices": [{"text": "1", "label": "A"}, {"text": "b", "label": "B"}], "answerKey": "B"}, "B"),
        ({"choices": '["1", "b"]', "answer": "1"}, "A"),
        ({"options": '{"A": "1", "B": "b"}', "answer": "B"}, "B"),
        ({"choices": ["1", "b"], "label": 0}, "A"),
        ({"choices": ["1", "b"], "label": "1"}, "A"),
        ({"A": "1", "B": "b", "C": "", "answer": "B"}, "B"),
        ({"options": {"A": "1", "B": "b"}, "answer": "b"}, "B"),
        ({"options": {"A": "1", "B": "b", "C": None}, "answer": "A"}, "A"),
        ({"A": "1", "B": "b", "C": math.nan, "answer": "A"}, "A"),
    ],
)
def test_of_several_choices_the_letter_is_the_reference(tmp_path: Path, row: Row, letter: str) -> None:
    found, _ = read(tmp_path, "problems", {"question": "Which?", **row})
    assert found == [([user(OPTIONS)], letter, None, letter)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"choices": ["1", "b"], "answer": 2}, "'answer' names none of the 2 options (answer is 2)"),
        ({"choices": ["1", "b"], "answer": "C"}, "names none"),
        ({"choices": ["1", "b"], "answer": None}, "no 'answer'"),
        ({"choices": ["1", "b"], "answerKey": ""}, "no 'answerKey' (answerKey is '')"),
        ({"choices": ["1"], "answer": 0}, "There must be 2 to 26"),
        ({"choices": {"A": "1"}, "answer": "A"}, "the options are {'A': '1'}. There must be 2 to 26"),
        ({"choices": {"text": None, "label": ["A"]}, "answer": "A"}, "There must be 2 to 26"),
        ({"choices": "['1', 'b']", "answer": "A"}, "the options are \"['1', 'b']\". There must be 2 to 26, in a list"),
        ({"options": "A. 1 B. b", "answer": "A"}, "There must be 2 to 26, in a list"),
        ({"choices": [{"text": "1"}, {"label": "B"}], "answer": "A"}, "no 'option' (option is None)"),
    ],
)
def test_choices_of_which_none_is_right_are_refused(tmp_path: Path, row: Row, says: str) -> None:
    assert says in refusal(tmp_path, "problems", {"question": "Which?", **row})


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"prompt": "Sky?"}, [ASKED]),
        ({"prompt": [SYSTEM, ASKED], "id": 3}, [SYSTEM, ASKED]),
        ({"question": "Sky?", "system": "Think."}, [SYSTEM, ASKED]),
        ({"instruction": "Name it.", "input": "Sky"}, [user("Name it.\nSky")]),
        ({"instruction": "Sky?", "source": "x", "completions": [{"response": "a"}], "models": ["m"]}, [ASKED]),
        ({"turns": ["Sky?", "And?"], "category": "x"}, [ASKED]),
        ({"messages": [ASKED]}, [ASKED]),
        ({"messages": [ASKED, SAID, ASKED]}, [ASKED, SAID, ASKED]),
        ({"conversations": [ASKED, SAID]}, [ASKED]),
        ({"prompt": [ASKED], "reward_model": {"style": "model"}}, [ASKED]),
        ({"prompt": [ASKED], "reward_model": "owner/name"}, [ASKED]),
        ({"prompt": [{"type": "text", "text": "Sky?"}]}, [ASKED]),
        ({"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}, [ASKED]),
        ({"question": "Sky?", "answer": "Blue."}, [ASKED]),
    ],
)
def test_every_format_can_serve_as_prompts(tmp_path: Path, row: Row, messages: list[dict[str, str]]) -> None:
    assert [said[0] for said in read(tmp_path, "prompts", row)[0]] == [messages]


def test_prompts_alone_are_refused_as_anything_else_with_what_they_lack(tmp_path: Path) -> None:
    message = refusal(tmp_path, "pairs", {"instruction": "Sky?", "input": "", "better": "a", "worse": "b"})
    assert "not read: better, worse" in message
    assert "The nearest is alpaca-preference (Alpaca), which also needs 'chosen', 'rejected'" in message
    assert "It can serve as prompts, not as pairs" in message
    assert "columns: {chosen: <your column>, rejected: <your column>}" in message


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2, "2"),
        (2.0, "2"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e20, "100000000000000000000"),
        (1e-7, "0.0000001"),
        (Decimal("2.50"), "2.5"),
        (Decimal("100"), "100"),
        (Decimal("1E+2"), "100"),
        (True, "True"),
        (False, "False"),
        ("2.0", "2.0"),
        (["2"], "2"),
        ([2.0], "2"),
        ([["2"]], "2"),
        ('["2"]', "2"),
        ("[2]", "[2]"),
        ('["2", "3", ]', '["2", "3", ]'),
    ],
)
def test_a_value_is_written_as_people_write_it(monkeypatch: pytest.MonkeyPatch, value: Any, written: str) -> None:
    assert valued(monkeypatch, value) == written


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "'answer' is nan, which is not an answer"),
        (math.inf, "'answer' is inf, which is not an answer"),
        (Decimal("NaN"), "'answer' is NaN, which is not an answer"),
        ("nan", "'answer' is nan, which is not an answer"),
        ("NaN", "'answer' is NaN, which is not an answer"),
        (["2", "3"], "'answer' holds 2 answers (['2', '3']). Keep one of them"),
        ('["2", "3"]', "holds 2 answers"),
        ([], "no 'answer' (answer is [])"),
        (None, "no 'answer' (answer is None)"),
        ({"value": 2}, "no 'answer' (answer is {'value': 2})"),
    ],
)
def test_a_value_that_is_no_answer_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: Any, says: str) -> None:
    with pytest.raises(DataFileError) as refused:
        valued(monkeypatch, value)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Sky?", "input": math.nan, "history": math.nan, "system": math.nan, "output": "Blue."},
        {"prompt": "Sky?", "response": "Blue.", "system": math.nan, "label": math.nan},
        {"messages": [ASKED | {"name": math.nan}, SAID | {"weight": math.nan, "tool_calls": math.nan}]},
        {"problem": "Sky?", "solution": "Blue.", "answer": math.nan, "final_answer": math.nan},
    ],
)
def test_nan_is_an_empty_field(tmp_path: Path, row: Row) -> None:
    found, tally = read(tmp_path, "demonstrations", row, row | {"score": math.nan})
    assert [said[:2] for said in found] == [([ASKED], "Blue.")] * 2
    assert not tally.noticed and not tally.dropped


def valued(monkeypatch: pytest.MonkeyPatch, value: Any) -> str | None:
    """The answer of a row that has this value, as a table may hold it."""
    rows = [("row 1", {"question": "1+1?", "answer": value}, None)]
    monkeypatch.setattr("data.prepare.reading.located_rows", lambda *_: iter(rows))
    ((_, record),) = read_records(Reading(Path("x")), "problems", Tally())
    return record.reference


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_number_of_a_table_is_written_as_short_as_its_precision_allows(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"question": list("abcd"), "answer": pa.array([0.1, 2.3, 40.0, math.nan], kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    reading = Reading(tmp_path / "a.parquet", drop=True)
    assert [record.reference for _, record in read_records(reading, "problems", Tally())] == ["0.1", "2.3", "40"]


def test_braces_in_code_are_no_placeholders(tmp_path: Path) -> None:
    answers = ['- debug: msg="{{ item }}"', "<p>Hello {{ user }}</p>", 'print(f"{{name}}")', "Hi."]
    rows = [{"instruction": f"Show {n}.", "output": text} for n, text in enumerate(answers)]
    found, tally = read(tmp_path, "demonstrations", *rows)
    assert [said[1] for said in found] == answers
    assert list(tally.noticed.values()) == [3]
    found, tally = read(tmp_path, "demonstrations", *rows, placeholders={"name": "Ada"})
    assert [said[1] for said in found] == [*answers[:2], 'print(f"Ada")', "Hi."]
    assert list(tally.noticed.values()) == [2]


def test_the_commands_say_what_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"messages": [user(f"Sky {n}?"), SAID | {"thinking": "Hm."}], "tools": []} for n in range(3)]
    path = str(write(tmp_path, *rows))
    assert main(["data", "inspect", path]) == 0
    assert main(["data", "format", path, "--output", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("it has messages; not read: tools.") == 2
    assert printed.count("In 3 rows: not read of a message: 'thinking', which reasoning: keep") == 2
    noticed = json.loads((tmp_path / "out" / "_summary.json").read_text())["noticed"]
    assert list(noticed.values()) == [3]
    assert main(["data", "inspect", path, "--reasoning", "keep"]) == 0
    assert "<think> Hm. </think> Blue." in " ".join(capsys.readouterr().out.split())


def test_the_nearest_format_is_one_that_further_columns_can_make(tmp_path: Path) -> None:
    message = refusal(tmp_path, "pairs", {"prompt": "Sky?", "better": "Blue.", "worse": "Green."})
    assert "The nearest is preference (prompt and two answers), which also needs 'chosen', 'rejected'" in message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"Question": "1+1?", "Answer": "2"}, "columns: {question: Question, answer: Answer}"),
        ({"question": "1+1?", "Answer": "2"}, "columns: {answer: Answer}"),
        (
            {"ID": "1", "Problem": "1+1?", "Solution": "Two.", "Answer": "2"},
            "columns: {problem: Problem, answer: Answer, solution: Solution}",
        ),
        (
            {"query": "And?", "response": "Blue.", "history": [["Sky?", "Blue."]]},
            "columns: {instruction: <your column>}",
        ),
        ({"query": "Sky?", "chosen": "Blue.", "rejected": "Green."}, "columns: {prompt: <your column>}"),
    ],
)
def test_help_with_columns_loses_none_of_them(tmp_path: Path, row: Row, says: str) -> None:
    assert says in refusal(tmp_path, "demonstrations", row)


def test_a_tree_without_ranked_answers_is_left_out_with_a_count(tmp_path: Path) -> None:
    tree = {"role": "prompter", "text": "Sky?", "replies": [{"role": "assistant", "text": "Blue.", "replies": []}]}
    found, tally = read(tmp_path, "pairs", {"message_tree_id": "a", "prompt": tree})
    assert (found, dict(tally.dropped), dict(tally.noticed)) == ([], {"no ranked answers": 1}, {})
