"""The further shapes of a problem's row, prompt/response and messages, and the file that is one JSON array."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.prepare.problems import with_prefix
from data.prepare.sources import DataFileError
from data.rewards.answer import has_answer
from data.rows import problem_id
from tests.unit.reading import read_few_shot, read_problems

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "1 + 1?"}
ASSISTANT = {"role": "assistant", "content": "It is 2.\n#### 2"}
AGAIN = {"role": "user", "content": "And 2 + 2?"}


def write(tmp_path: Path, *rows: Any, name: str = "problems.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataFileError) as refused:
        read_problems(path, None, has_answer)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 600
    return str(refused.value)


@pytest.mark.parametrize(
    ("row", "messages", "response"),
    [
        ({"question": "1 + 1?", "answer": 2}, [USER], "2"),
        ({"prompt": "1 + 1?", "response": "It is 2.\n#### 2"}, [USER], "It is 2.\n#### 2"),
        ({"messages": [USER, ASSISTANT]}, [USER], "It is 2.\n#### 2"),
        ({"messages": [SYSTEM, USER, ASSISTANT]}, [SYSTEM, USER], "It is 2.\n#### 2"),
        ({"messages": [USER, ASSISTANT, AGAIN, ASSISTANT]}, [USER, ASSISTANT, AGAIN], "It is 2.\n#### 2"),
        ({"messages": [USER | {"name": "Ann", "weight": 1}, ASSISTANT]}, [USER], "It is 2.\n#### 2"),
        # The shape that is whole wins over one of which a field is there, and the earlier over the later.
        ({"prompt": "1 + 1?", "prompt_id": "a", "messages": [SYSTEM, USER, ASSISTANT]}, [SYSTEM, USER], "It is 2.…"),
        ({"question": "?", "prompt": "1 + 1?", "response": "2"}, [USER], "2"),
        ({"messages": [], "question": "1 + 1?", "answer": "2", "prompt": "?"}, [USER], "2"),
    ],
)
def test_a_row_of_each_shape_is_a_problem_with_its_response_as_reference(
    tmp_path: Path, row: dict[str, Any], messages: list[dict[str, str]], response: str
) -> None:
    (problem,) = read_problems(write(tmp_path, row), "train", has_answer).problems
    assert problem.messages == messages
    assert problem.response == problem.reference
    assert (problem.response or "").startswith(response.rstrip("…"))
    assert problem.id == problem_id(messages)


def test_shapes_may_be_mixed_and_the_same_prompt_has_the_same_identity_in_each(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"question": "1 + 1?", "answer": "2"},
        {"prompt": "1  + 1?", "response": "two: #### 2"},
        {"messages": [USER, ASSISTANT]},
        {"messages": [SYSTEM, USER, ASSISTANT]},
    )
    read = read_problems(path, None, has_answer)
    one, two, three, four = (p.id for p in read.problems)
    assert one == two == three != four


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"query": "1 + 1?", "solution": "2"},
            ["no 'question' (fields 'query', 'solution')", "needs question and answer or solution", "remove the row"],
        ),
        ({"prompt": "1 + 1?"}, ["no 'answer' (fields 'prompt')"]),
        ({"response": "2"}, ["no 'prompt' (fields 'response')"]),
        ({"prompt": " ", "response": "2"}, ["no 'prompt' (prompt is ' ')"]),
        ({"prompt": "1 + 1?", "response": 2}, ["no 'response' (response is 2)"]),
        ({"prompt": [USER, ASSISTANT], "response": "2"}, ["'prompt' ends in a turn of the assistant"]),
        (
            {"prompt": "1?", "response": [ASSISTANT, AGAIN]},
            ["'response' holds assistant → user"],
        ),
        ({"prompt": "1 + 1?", "response": None}, ["no 'response' (response is None)"]),
        ({"messages": None}, ["'messages' is None", "must be a non-empty list"]),
        ({"messages": []}, ["'messages' is []", "a non-empty list"]),
        ({"messages": "1 + 1?"}, ["'messages' is '1 + 1?'"]),
        ({"messages": [USER, "2"]}, ["turn 2 of 'messages' is '2'", "object with 'role' and 'content'"]),
        ({"messages": [{"content": "?"}, ASSISTANT]}, ["turn 1 of 'messages'", "unknown 'role' (fields 'content')"]),
        (
            {"messages": [USER | {"role": "king"}, ASSISTANT]},
            ["unknown 'role' (role is 'king')", "Known roles: 'system', 'user', 'assistant'"],
        ),
        ({"messages": [USER | {"role": ["user"]}, ASSISTANT]}, ["unknown 'role' (role is ['user'])"]),
        ({"messages": [{"role": "user"}, ASSISTANT]}, ["turn 1 of 'messages': no 'content' (fields 'role')"]),
        (
            {"messages": [USER, ASSISTANT | {"content": "\n"}]},
            ["turn 2 of 'messages': no 'content' (content is '\\n')", "remove the row"],
        ),
        ({"messages": [USER | {"content": [{"type": "text"}]}, ASSISTANT]}, ["turn 1", "content is [{"]),
        ({"messages": [USER, SYSTEM, ASSISTANT]}, ["turn 2 of 'messages' is a system message", "Only the first"]),
        ({"messages": [USER]}, ["'messages' ends in user.", "the assistant's response"]),
        ({"messages": [ASSISTANT]}, ["'messages' ends in assistant.", "must end in a user turn"]),
        ({"messages": [SYSTEM, ASSISTANT]}, ["'messages' ends in system → assistant."]),
        ({"messages": [USER, ASSISTANT, ASSISTANT]}, ["'messages' ends in assistant → assistant."]),
        ({"messages": [USER, ASSISTANT, AGAIN]}, ["'messages' ends in assistant → user.", "Cut off what follows"]),
        ({"prompt": "1?", "response": "One\nand one"}, ["the answer 'One\\nand one' has no final answer"]),
        (
            {"messages": [USER, ASSISTANT | {"content": "I\nguess"}]},
            ["the answer 'I\\nguess' has no final answer", "'#### <answer>'"],
        ),
    ],
)
def test_a_row_that_is_no_problem_is_refused_naming_line_and_field(
    tmp_path: Path, row: dict[str, Any], says: list[str]
) -> None:
    message = refusal(write(tmp_path, {"question": "0 + 1?", "answer": "1"}, row))
    for words in ("line 2", *says):
        assert words in message


def test_without_a_reward_to_read_it_a_response_needs_no_final_answer_but_still_a_text(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "Tell a story.", "response": "Once\nupon a time"})
    (problem,) = read_problems(path, None, None).problems
    assert problem.response == problem.reference == "Once\nupon a time"
    with pytest.raises(DataFileError, match="line 1: no 'response'"):
        read_problems(write(tmp_path, {"prompt": "Tell a story.", "response": ""}), None, None)


@pytest.mark.parametrize("start", ["", "\ufeff", "\n \t"])
def test_a_json_file_may_hold_one_array(tmp_path: Path, start: str) -> None:
    path = tmp_path / "problems.json"
    rows = [{"question": "1 + 1?", "answer": "2"}, {"prompt": "2 + 2?", "response": "4"}]
    path.write_text(start + json.dumps(rows, indent=2), encoding="utf-8")
    read = read_problems(path, None, has_answer)
    assert (read.rows, [p.reference for p in read.problems]) == (2, ["2", "4"])
    assert read.problems[0].source == "problems.json"


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "1 + 1?", "answer": "2"}, {"question": "2?", "answer": "2"}, name="p.json")
    assert read_problems(path, None, has_answer).rows == 2


GOOD = b'{"question": "1 + 1?", "answer": "2"}'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[]", ["is empty"]),
        (b"", ["is empty"]),
        (b"[" + GOOD, ["malformed JSON", "line 1 column", "one JSON array of objects"]),
        (b"[" + GOOD + b",\n" + GOOD + b",\n]", ["malformed JSON"]),
        (b"[" + GOOD + b"]\n[" + GOOD + b"]", ["malformed JSON (Extra data: line 2"]),
        (b"[" * 100_000, ["malformed JSON"]),
        (b"[" + GOOD + b", 17]", ["row 2: int is not a JSON object", "Each row must be one"]),
        (b"[[" + GOOD + b"]]", ["row 1: list is not a JSON object"]),
        (b"[" + GOOD + b', {"question": "?", "answer": NaN}]', ["row 2: 'answer' is nan, which is not an answer"]),
        (b'[{"question": "\\ud800", "answer": "2"}]', ["row 1: malformed JSON", "half a surrogate pair"]),
        (b"[" + GOOD + b', {"question": "?"}]', ["row 2: no 'answer' (fields 'question')"]),
        (b"[" + GOOD + b', {"messages": [3]}]', ["row 2: turn 1 of 'messages' is 3"]),
        (b"[" + GOOD + b', {"question": "?", "answer": "a\\nb"}]', ["row 2: the answer", "has no final answer"]),
        (b'[{"question": "\xe9t\xe9?", "answer": "2"}]', ["not UTF-8", "Convert the file to UTF-8"]),
    ],
)
def test_an_unusable_json_file_is_refused_naming_the_row(tmp_path: Path, content: bytes, says: list[str]) -> None:
    path = tmp_path / "problems.json"
    path.write_bytes(content)
    message = refusal(path)
    for words in says:
        assert words in message


def test_worked_examples_are_questions_and_answers_and_come_after_a_system_message(tmp_path: Path) -> None:
    turns = read_few_shot(write(tmp_path, {"question": "3 + 3?", "answer": 6}))
    (problem,) = read_problems(write(tmp_path, {"messages": [SYSTEM, USER, ASSISTANT]}), None, has_answer).problems
    prefixed = with_prefix(problem, turns)
    assert [m["content"] for m in prefixed.messages] == ["Be brief.", "3 + 3?", "6", "1 + 1?"]
    assert prefixed.id == problem.id
    assert read_few_shot(write(tmp_path, {"prompt": "3 + 3?", "response": "6"})) == turns


def test_a_worked_example_with_a_system_message_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"line 1: a worked example has a system message"):
        read_few_shot(write(tmp_path, {"messages": [SYSTEM, USER, ASSISTANT]}))
