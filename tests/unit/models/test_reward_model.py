"""A reward model's loss against values computed by hand; scores alone, in batches, and of what cannot be judged."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import RewardConfig

from data.arithmetic import embedded_problems
from data.render import judged_token_ids
from data.rows import Pair, Problem, Sample, Score
from data.storage import read_rows, write_rows
from models.config import RewardScoreProgram, ScoreJob, ScoringConfig
from models.progress import Progress
from models.training.common import load_reward_model
from models.training.reward_model import PairRewardTrainer, RewardCollator, encode
from models.training.reward_score import Judge, batches, score_job
from tests.unit.toy import write_tiny

PROBLEMS = [p for p in embedded_problems(0) if p.split == "demonstration"][:4]
TEXTS = ["4", "4 + 17 = 21. 21 - 16 = 5. #### 5", "no idea", "no " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with random weights, whose rewards are about 1 in size as those of a trained one are."""
    folder = tmp_path_factory.mktemp("model")
    write_tiny(folder, [p.messages[0]["content"] for p in PROBLEMS])
    model = load_reward_model(folder, AutoTokenizer.from_pretrained(folder), "float32")
    model.score.weight.data.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def judge(folder: Path, passes_at: float = 0.0, batch_tokens: int = 16_384, max_length: int | None = None) -> Judge:
    scoring = ScoringConfig(dtype="float32", batch_tokens=batch_tokens)
    told = {"model": folder, "scoring": scoring, "passes_at": passes_at, "max_length": max_length, "grader": "rm 1"}
    return Judge(RewardScoreProgram.model_validate(told), Progress("score", 1000, "answer"))


def sequences(tokenizer: Any) -> list[list[int]]:
    rendered = (judged_token_ids(tokenizer, p.messages, text) for p in PROBLEMS for text in TEXTS)
    return [prompt + answer for prompt, answer in rendered]


@pytest.mark.parametrize(
    ("margin", "centering", "label"), [(0.0, 0.0, None), (0.7, 0.0, None), (0.7, 0.3, None), (0.7, 0.3, 0.8)]
)
def test_the_loss_is_the_formula_of_the_papers(folder, tmp_path, margin, centering, label):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [Pair(p.id, 0, p.messages, TEXTS[1], TEXTS[2 + n % 2], None, None, "", "") for n, p in enumerate(PROBLEMS)]
    rows = [encode(tokenizer, replace(pair, label=label), margin) for pair in pairs]
    trainer = PairRewardTrainer(
        model=load_reward_model(folder, tokenizer, "float32"),
        args=RewardConfig(
            output_dir=str(tmp_path),
            center_rewards_coefficient=centering or None,
            use_cpu=True,
            bf16=False,
            max_length=None,
            report_to=[],
            gradient_checkpointing=False,
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=RewardCollator(tokenizer.pad_token_id),
    )
    found = float(trainer.compute_loss(trainer.model, trainer.data_collator(rows)).detach())
    scorer = judge(folder)
    expected = []
    for row in rows:
        chosen, rejected = scorer.rewards([row["chosen_ids"], row["rejected_ids"]])
        assert abs(chosen - rejected) > 0.01
        apart, share = chosen - rejected - margin, 1.0 if label is None else label
        cross_entropy = share * math.log1p(math.exp(-apart)) + (1 - share) * math.log1p(math.exp(apart))
        expected.append(cross_entropy + centering * (chosen + rejected) ** 2)
    with torch.no_grad():
        unseen = trainer.row_values(trainer.model, trainer.data_collator(rows))["loss"]
    assert unseen.tolist() == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_a_reward_is_the_same_alone_and_in_any_batch(folder, batch_tokens):
    scorer = judge(folder, batch_tokens=batch_tokens)
    rows = sequences(scorer.tokenizer)
    alone = [scorer.rewards([row])[0] for row in rows]
    assert scorer.rewards(rows) == pytest.approx(alone, abs=1e-5)
    assert len({round(value, 4) for value in alone}) == len(alone)


def test_batches_are_of_similar_length_longest_first_and_leave_nobody_out():
    assert list(batches([3, 9, 2, 3, 20], 10)) == [[4], [1], [0, 3, 2]]
    assert list(batches([], 10)) == []


def test_white_space_around_an_answer_is_no_part_of_it(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = [judged_token_ids(tokenizer, PROBLEMS[0].messages, text) for text in ("4", " 4\n")]
    assert given[0] == given[1]
    assert given[0][1][-1] == tokenizer.eos_token_id


def sample(problem: Problem, index: int, text: str, finish: str = "stop") -> Sample:
    return Sample(problem.id, index, text, [1], finish, "p", 0, "s")


def test_verdicts_follow_the_threshold_and_the_rows_keep_their_order(folder):
    rows = [(p, sample(p, n, text)) for p in PROBLEMS for n, text in enumerate(TEXTS)]
    values = judge(folder).rewards(sequences(judge(folder).tokenizer))
    threshold = sorted(values)[8]
    found = list(judge(folder, threshold, batch_tokens=100).scores(rows))
    assert [(s.problem_id, s.index) for s in found] == [(s.problem_id, s.index) for _, s in rows]
    assert [s.value for s in found] == pytest.approx(values, abs=1e-5)
    assert {s.grader for s in found} == {"rm 1"}
    verdicts = [s.verdict for s in found]
    assert verdicts.count("correct") in (7, 8) and verdicts.count("wrong") in (8, 9)
    assert all((s.value >= threshold) == (s.verdict == "correct") for s in found if s.value is not None)


@pytest.mark.parametrize("passes_at", [-100.0, 100.0])
def test_a_truncated_sample_is_never_preferred(folder, passes_at):
    rows = [(PROBLEMS[0], sample(PROBLEMS[0], n, text)) for n, text in enumerate(TEXTS)]
    rows.insert(1, (PROBLEMS[0], sample(PROBLEMS[0], 9, TEXTS[1], "length")))
    rows.append((PROBLEMS[1], sample(PROBLEMS[1], 0, "4", "length")))
    found = list(judge(folder, passes_at).scores(rows))
    cut, alone = found[1], found[-1]
    assert (cut.verdict, cut.explanation) == ("wrong", "truncated at the token limit")
    others = [s.value for s in found[:-1] if s is not cut and s.value is not None]
    assert len(others) == 4 and cut.value is not None and cut.value < min(*others, passes_at)
    assert (alone.verdict, alone.value) == ("wrong", passes_at - 1)


def test_what_the_model_cannot_read_whole_is_an_error_and_not_cut(folder):
    rows = [(PROBLEMS[0], sample(PROBLEMS[0], 0, "4")), (PROBLEMS[0], sample(PROBLEMS[0], 1, "no " * 200))]
    short, long = judge(folder, max_length=120).scores(rows)
    assert short.verdict in ("correct", "wrong")
    assert (long.verdict, long.value) == ("error", None)
    assert "tokens, and the reward model reads 120." in long.explanation


def test_a_reward_that_is_no_number_is_an_error(folder):
    scorer = judge(folder)
    scorer.model.score.weight.data.fill_(math.nan)
    (found,) = scorer.scores([(PROBLEMS[0], sample(PROBLEMS[0], 0, "4"))])
    assert (found.verdict, found.value) == ("error", None)
    assert "gave nan" in found.explanation


def test_shards_are_scored_one_file_each_and_those_that_are_there_are_kept(folder, tmp_path):
    job = ScoreJob(problems=tmp_path / "p.parquet", samples=tmp_path / "samples", output=tmp_path / "scores")
    job.samples.mkdir()
    write_rows(Problem, job.problems, PROBLEMS)
    for number, half in enumerate((PROBLEMS[:2], PROBLEMS[2:])):
        rows = [sample(p, n, text) for p in half for n, text in enumerate(TEXTS)]
        write_rows(Sample, job.samples / f"00000{number}.parquet", rows)
    score_job(judge(folder), job)
    files = sorted(job.output.iterdir())
    assert [file.name for file in files] == ["000000.parquet", "000001.parquet"]
    whole = list(read_rows(Score, job.output))
    assert [(s.problem_id, s.index) for s in whole] == [(s.problem_id, s.index) for s in read_rows(Sample, job.samples)]
    kept = [replace(score, grader="kept") for score in read_rows(Score, files[0])]
    write_rows(Score, files[0], kept)
    write_rows(Score, files[1], whole[9:])  # a torn one, of other rows
    write_rows(Score, job.output / "000002.parquet", kept)
    scorer = judge(folder)
    score_job(scorer, job)
    assert list(read_rows(Score, job.output)) == kept + whole[8:]
    assert scorer.progress is not None and scorer.progress.done == 16
