"""A direct score: the ten replies have the probabilities that the model gives them, alone and in any batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.arithmetic import embedded_problems
from data.labels import as_reward, direct_score
from data.rows import Problem, Sample
from models.config import DirectScoreProgram, ScoringConfig
from models.training.direct_score import DirectJudge
from tests.unit.toy import write_tiny

PROBLEMS = [p for p in embedded_problems(0) if p.split == "demonstration"][:4]
TEXTS = ["4", "4 + 17 = 21. 21 - 16 = 5. #### 5", "no idea", "no " * 40]
RUBRIC = "From 1 to 10?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny(folder, [p.messages[0]["content"] for p in PROBLEMS])
    model = AutoModelForCausalLM.from_pretrained(folder)
    for weights in model.parameters():  # or all replies would be as likely
        weights.data.mul_(3)
    model.save_pretrained(folder)
    return folder


def judge(folder: Path, **changes: Any) -> DirectJudge:
    told = {"model": folder, "rubric": RUBRIC, "scoring": ScoringConfig(dtype="float32"), "grader": "direct@1"}
    return DirectJudge(DirectScoreProgram.model_validate(told | changes))


def sample(problem: Problem, index: int, text: str, finish: str = "stop") -> Sample:
    return Sample(problem.id, index, text, [], finish, "policy", 0, "")


def by_hand(folder: Path, question: list[int]) -> list[float]:
    """Each reply after the question, in a forward pass of its own."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for value in range(1, 11):
        reply = tokenizer(f"{value}}}", add_special_tokens=False)["input_ids"]
        assert len(reply) > 1
        with torch.no_grad():
            after = model(torch.tensor([question + reply])).logits[0, len(question) - 1 : -1].log_softmax(dim=-1)
        found.append(float(after.gather(1, torch.tensor(reply)[:, None]).sum()))
    return found


@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
def test_the_replies_have_the_models_probabilities_in_any_batch(folder, batch_tokens):
    scorer = judge(folder, scoring=ScoringConfig(dtype="float32", batch_tokens=batch_tokens))
    questions = [scorer.rendered(problem, text) for problem in PROBLEMS[:2] for text in TEXTS]
    assert scorer.log_probs(questions[:3]).tolist()[1] == pytest.approx(by_hand(folder, questions[1]), abs=1e-4)
    expected = [as_reward(direct_score(by_hand(folder, question))) for question in questions]
    assert max(expected) - min(expected) > 0.01 and all(-1 <= value <= 1 for value in expected)
    assert scorer.rewards(questions) == pytest.approx(expected, abs=1e-4)


def test_a_score_has_a_verdict_and_what_cannot_be_read_whole_is_an_error(folder):
    long = Problem("long", [{"role": "user", "content": "why? " * 2000}], None, None, "", "train")
    rows = [(PROBLEMS[0], sample(PROBLEMS[0], 0, "4")), (PROBLEMS[0], sample(PROBLEMS[0], 1, "4+", "length"))]
    rows += [(long, sample(long, 0, "4"))]
    whole, cut, unread = judge(folder, passes_at=-1.0).scores(rows)
    assert whole.verdict == "correct" and whole.value is not None and whole.grader == "direct@1"
    assert cut.verdict == "wrong" and cut.value == -2.0
    assert unread.verdict == "error" and "reads" in unread.explanation
