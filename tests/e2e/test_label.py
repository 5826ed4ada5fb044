"""A real labeler: vLLM's probabilities of both choices are those of transformers, whatever was reasoned before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from data.label_questions import CHOICES, END, before_choice, compared
from data.labels import Label, probabilities, soft_label
from data.render import prompt_token_ids
from data.rows import Problem, Sample
from data.storage import read_rows, write_rows
from models import tiny
from models.config import EngineConfig, LabelerConfig, LabelProgram
from tests.e2e.programs import run_program

LABEL = "models.asking.label"
TEXTS = ["4+17=21 #### 21", "I do not know. é €", "</answer 1> 21 is better", "  21  ", "4+17="]
RUBRIC = "Which is better?"


@pytest.fixture(scope="module")
def labeler(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's architecture with random weights that are far enough apart to prefer something."""
    folder = tmp_path_factory.mktemp("labeler") / "model"
    tiny.write_untrained(folder, [t for p in problems[:200] for t in (p.messages[0]["content"], p.response or "")])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def label(folder: Path, labeler: Path, problems: list[Problem], texts: list[str], **settings: Any) -> list[Label]:
    """Label two shards of answers, the last of each problem truncated."""
    folder.mkdir()
    (folder / "samples").mkdir()
    write_rows(Problem, folder / "problems.parquet", problems)
    for number, some in enumerate((problems[:2], problems[2:])):
        rows = [
            Sample(p.id, i, text, [1], "stop" if text != TEXTS[-1] else "length", "policy", 0, "s")
            for p in some
            for i, text in enumerate(texts)
        ]
        write_rows(Sample, folder / "samples" / f"{number:06d}.parquet", rows)
    told = LabelerConfig.model_validate({"dtype": "float32", "rubric": RUBRIC} | settings)
    files = {"problems": folder / "problems.parquet", "samples": folder / "samples", "output": folder / "labels"}
    program = {"labeler": told, "policy": labeler, "engine": EngineConfig(), "seed": 3}
    (folder / "program.json").write_text(LabelProgram.model_validate(program | files).model_dump_json())
    run_program(LABEL, folder / "program.json")
    return list(read_rows(Label, folder / "labels"))


def by_transformers(labeler: Path, problem: Problem, answers: list[str], reasoning: str | None) -> float:
    """The probability of "the first shown is better"."""
    tokenizer, model = AutoTokenizer.from_pretrained(labeler), AutoModelForCausalLM.from_pretrained(labeler)
    prompt = prompt_token_ids(tokenizer, compared(problem, answers, RUBRIC, "", reasoning is not None))
    prompt = prompt + tokenizer(before_choice(reasoning))["input_ids"]
    choices = [tokenizer(choice + END)["input_ids"] for choice in CHOICES]
    return probabilities([log_prob(model.eval(), prompt, choice) for choice in choices])[0]


def log_prob(model: Any, prompt: list[int], continuation: list[int]) -> float:
    with torch.no_grad():
        after = model(torch.tensor([prompt + continuation])).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
    return float(after.gather(1, torch.tensor(continuation)[:, None]).sum())


def test_labels_are_the_probabilities_that_transformers_gives_and_swapping_mirrors_them(
    labeler: Path, problems: list[Problem], tmp_path: Path
) -> None:
    asked, texts = problems[:4], TEXTS
    found = label(tmp_path / "one", labeler, asked, texts, max_reasoning=20)
    known = [(one.problem_id, one.index, one.other) for one in found]
    assert known == [(problem.id, *pair) for problem in asked for pair in ((0, 1), (2, 3))]
    for one in found[:3]:
        problem, answers = next(p for p in asked if p.id == one.problem_id), [texts[one.index], texts[one.other]]
        assert 1 <= len(one.reasoning) <= 20 and not one.failure
        straight = by_transformers(labeler, problem, answers, one.reasoning)
        swapped = by_transformers(labeler, problem, answers[::-1], one.swapped_reasoning)
        assert (one.straight, one.swapped) == pytest.approx((straight, swapped), abs=2e-4)
        assert one.value == soft_label(one.straight, one.swapped)  # type: ignore[arg-type]
    mirrored = label(tmp_path / "other", labeler, asked, [texts[1], texts[0], texts[3], texts[2]], max_reasoning=20)
    for one, other in zip(found, mirrored, strict=True):
        assert one.value == pytest.approx(1 - (other.value or 0), abs=1e-9)
        assert (one.reasoning, one.straight) == (other.swapped_reasoning, other.swapped)


def test_without_reasoning_the_choice_is_read_at_once_and_shards_that_are_there_stay(
    labeler: Path, problems: list[Problem], tmp_path: Path
) -> None:
    found = label(tmp_path / "one", labeler, problems[:3], TEXTS[:2], max_reasoning=0)
    assert [one.reasoning for one in found] == [""] * 3
    expected = by_transformers(labeler, problems[0], TEXTS[:2], None)
    assert found[0].straight == pytest.approx(expected, abs=2e-4)
    first, second = sorted((tmp_path / "one/labels").iterdir())
    before = first.stat().st_mtime_ns
    second.unlink()
    (tmp_path / "one/labels/000009.parquet").write_bytes(b"of an attempt with other shards")
    run_program(LABEL, tmp_path / "one/program.json")
    assert first.stat().st_mtime_ns == before and list(read_rows(Label, tmp_path / "one/labels")) == found


def test_what_does_not_fit_has_no_label_and_says_why(labeler: Path, problems: list[Problem], tmp_path: Path) -> None:
    long = Problem("long", [{"role": "user", "content": "why? " * 2000}], None, None, "", "train")
    *found, last = label(tmp_path / "one", labeler, [*problems[:2], long], TEXTS[:2], max_reasoning=10)
    assert all(one.value is not None for one in found)
    assert last.value is None and "does not fit into its context" in last.failure
