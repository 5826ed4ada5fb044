"""A real judge: vLLM holds a model with random weights to the form of a reply, so every reply can be read."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from data.judge_questions import Opinion
from data.prepare.new_prompts import MadeUp
from data.prepare.passages import Passage
from data.prepare.written_prompts import PromptReply
from data.rows import Problem, Sample, Score
from data.storage import read_rows, write_rows
from models import tiny
from models.config import (
    EngineConfig,
    JudgeConfig,
    JudgeProgram,
    NewPromptsConfig,
    NewPromptsProgram,
    ScoreJob,
    WritePromptsConfig,
    WritePromptsProgram,
)
from tasks.rollouts.judge_reward import judge_command
from tasks.stage.environment import SHARED_CPU, child_environment
from tests.e2e.programs import run_program
from tests.forks import JUDGE, WRITE_PROMPTS
from tests.waiting import PATIENCE

NEW_PROMPTS = "models.asking.new_prompts"
TEXTS = ["4+17=21 #### 21", "I do not know. é €", "21"]


@pytest.fixture(scope="module")
def judge(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's architecture, untrained: whatever can be said, it says. Its context holds a whole question."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("judge") / "model"
    texts = [t for p in problems[:200] for t in (p.messages[0]["content"], p.response or "")]
    tiny.write_untrained(folder, texts)
    config = AutoConfig.from_pretrained(folder)
    config.max_position_embeddings = 2048
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_job(folder: Path, problems: list[Problem], texts: list[str], long: bool = False) -> ScoreJob:
    """Two shards of a few answers, the last of them truncated; `long`: another problem, too long for the judge."""
    (folder / "samples").mkdir(parents=True)
    problems = problems[:4]
    if long:
        problems = [*problems, Problem("long", [{"role": "user", "content": "why? " * 2000}], None, None, "", "train")]
    write_rows(Problem, folder / "problems.parquet", problems)
    for number, chosen in enumerate((problems[:2], problems[2:])):
        rows = [
            Sample(p.id, i, text, [1], "stop" if i < len(texts) else "length", "policy", 0, "s")
            for p in chosen
            for i, text in enumerate([*texts, "4+17="])
        ]
        write_rows(Sample, folder / "samples" / f"{number:06d}.parquet", rows)
    return ScoreJob(problems=folder / "problems.parquet", samples=folder / "samples", output=folder / "scores")


def write_program(file: Path, policy: Path, jobs: list[ScoreJob], **settings: Any) -> Path:
    config = JudgeConfig(max_reasoning=20, temperature=1.0, dtype="float32", **settings)
    told = JudgeProgram(judge=config, policy=policy, jobs=jobs, engine=EngineConfig(), seed=5, grader="judge@1")
    file.write_text(told.model_dump_json())
    return file


def run(config: Path, anew: bool = False) -> str:
    """Run the program; `anew`: start it as its stage does, which is slower."""
    if not anew:
        return run_program(JUDGE, config)
    done = subprocess.run(
        judge_command(config),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=child_environment(SHARED_CPU),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.rglob("*.parquet")}


def values(job: ScoreJob) -> list[float | None]:
    return [score.value for score in read_rows(Score, job.output)]


def test_pointwise_every_reply_is_read_and_nothing_is_judged_twice(judge, problems, tmp_path):
    train = [p for p in problems if p.split == "train"]
    job = write_job(tmp_path, train, TEXTS, long=True)
    config = write_program(tmp_path / "judge.json", judge, [job], opinions=3)
    assert "36/36" in run(config, anew=True)
    opinions = list(read_rows(Opinion, job.output / "opinions"))
    assert len(opinions) == 5 * 3 * 3
    assert all(len(json.loads(o.text)["reasoning"]) <= 20 for o in opinions if o.text)
    compact = [json.dumps(json.loads(o.text), separators=(",", ":"), ensure_ascii=False) for o in opinions if o.text]
    assert compact == [o.text for o in opinions if o.text]  # no blanks or long escapes that the limit does not count
    scores = list(read_rows(Score, job.output))
    samples = list(read_rows(Sample, job.samples))
    assert [(s.problem_id, s.index) for s in scores] == [(s.problem_id, s.index) for s in samples]
    assert [s.value for s in scores if s.index == 3] == [0.0] * 5
    assert len(set(values(job))) > 4
    too_long = [s for s in scores if s.verdict == "error"]
    assert {(s.problem_id, s.index) for s in too_long} == {("long", 0), ("long", 1), ("long", 2)}
    assert "does not fit into its context of 2048" in too_long[0].explanation
    rates = json.loads((job.output / "judge.json").read_text())
    assert (rates["asked"], rates["replied"], rates["parsed"]) == (45, 36, 36)
    assert sum(rates["distribution"].values()) == 36
    assert rates["entropy_bits"] > 1
    before = files(tmp_path)
    (job.output / "judge.json").unlink()
    assert "reply" not in run(config)
    assert files(tmp_path) == before
    assert json.loads((job.output / "judge.json").read_text()) == rates


def test_prompts_are_written_for_passages_in_a_form_that_can_be_read(judge, problems, tmp_path):
    texts = [p.messages[0]["content"] for p in problems[:6]] + ["why? " * 2000]
    passages = [Passage(f"{i}", text, "", "", None) for i, text in enumerate(texts)]
    write_rows(Passage, tmp_path / "passages.parquet", passages)
    writer = WritePromptsConfig(temperature=1.0, dtype="float32", max_tokens=200, instruction="Ask.")
    folders = {"passages": tmp_path / "passages.parquet", "output": tmp_path / "replies"}
    told = WritePromptsProgram(writer=writer, policy=judge, engine=EngineConfig(shard_size=3), seed=5, **folders)
    (tmp_path / "program.json").write_text(told.model_dump_json())
    assert "6/6" in run_program(WRITE_PROMPTS, tmp_path / "program.json")
    *replies, last = read_rows(PromptReply, tmp_path / "replies")
    assert (last.text, "does not fit into its context of 2048" in last.failure) == ("", True)
    finished = [reply.text for reply in replies if reply.text.endswith("}")]
    assert finished and all(list(json.loads(text)) == ["instruction"] for text in finished)
    assert all(reply.text.startswith('{"instruction":"') for reply in replies)
    before = files(tmp_path)
    assert "reply" not in run_program(WRITE_PROMPTS, tmp_path / "program.json")
    assert files(tmp_path) == before


def test_pairwise_every_reply_is_read_and_swapped_answers_swap_their_values(judge, problems, tmp_path):
    train = [p for p in problems if p.split == "train"]
    jobs = [
        write_job(tmp_path / "one", train, TEXTS[:2]),
        write_job(tmp_path / "swapped", train, TEXTS[1::-1]),
    ]
    assert "96/96" in run(write_program(tmp_path / "judge.json", judge, jobs, kind="pairwise", opinions=6))
    one, swapped = (values(job) for job in jobs)
    assert one[0::3] == swapped[1::3]
    assert one[1::3] == swapped[0::3]
    assert len(set(one[0::3])) > 1
    assert [a + b for a, b in zip(one[0::3], one[1::3], strict=True)] == pytest.approx([1.0] * 4)
    rates = [json.loads((job.output / "judge.json").read_text()) for job in jobs]
    assert rates[0] == rates[1]
    assert (rates[0]["asked"], rates[0]["parsed"], rates[0]["comparisons"]) == (48, 48, 24)
    assert set(rates[0]["distribution"]) == {"A", "B", "tie"}
    assert 0 < rates[0]["flip_rate"] < 1


def test_new_prompts_are_made_up_in_their_form_and_the_same_ones_again(
    judge: Path, problems: list[Problem], tmp_path: Path
) -> None:
    write_rows(Problem, tmp_path / "seeds.parquet", problems[:12])
    found = []
    for name in ("one", "two"):
        told = NewPromptsProgram(
            writer=NewPromptsConfig(count=6, max_tokens=32, dtype="float32"),
            policy=judge,
            seeds=tmp_path / "seeds.parquet",
            output=tmp_path / name,
            engine=EngineConfig(),
            seed=5,
        )
        (tmp_path / f"{name}.json").write_text(told.model_dump_json())
        run_program(NEW_PROMPTS, tmp_path / f"{name}.json")
        found.append(list(read_rows(MadeUp, tmp_path / name)))
    assert found[0] == found[1] and len({reply.text for reply in found[0]}) == 6
    assert all(reply.text.startswith('{"instruction":"') and len(reply.examples) == 8 for reply in found[0])
