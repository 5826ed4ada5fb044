"""Real generation: reproducible, resumable at shards, and from exactly the prompt ids that training uses."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data.arithmetic import shows_no_steps
from data.files import file_sha256
from data.render import completion_token_ids, prompt_token_ids, stop_token_ids
from data.rewards.final_answer import final_answer
from data.rows import Problem, Sample, Score
from data.scoring import Tally, score_samples
from data.selection import select_examples
from data.storage import parquet_files, read_rows, write_rows
from models import tiny
from models.config import EngineConfig, GenerateJob, GenerateProgram, SamplingConfig, UntilKept
from tasks.policies.shipped import BASES, POLICY, shipped_bases
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import child_environment
from tests.e2e.conftest import generate
from tests.waiting import eventually


def write_program(folder: Path, policy: Path, problems: list[Problem], samples: int, temperature: float) -> Path:
    write_rows(Problem, folder / "problems.parquet", problems)
    sampling = SamplingConfig(samples=samples, temperature=temperature, max_tokens=40, dtype="float32")
    job = GenerateJob(
        problems=folder / "problems.parquet", output=folder / "samples", sampling=sampling, seed=7, shard_size=64
    )
    program = GenerateProgram(policy=policy, policy_digest="abc", jobs=[job], engine=EngineConfig())
    (folder / "generate.json").write_text(program.model_dump_json())
    return folder / "generate.json"


@pytest.fixture(scope="module")
def sampled(policy, problems, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sampled")
    chosen = [p for p in problems if p.split == "train"][:40]
    output = generate(write_program(folder, policy, chosen, 4, 0.7))
    assert "160/160" in output
    assert "tokens/s" in output
    return folder


def test_samples_are_complete_and_say_how_they_came_about(sampled, problems):
    rows = list(read_rows(Sample, sampled / "samples"))
    assert [(r.problem_id, r.index) for r in rows] == [
        (p.id, i) for p in [p for p in problems if p.split == "train"][:40] for i in range(4)
    ]
    assert {r.policy for r in rows} == {"abc"}
    assert len({r.seed for r in rows}) == len(rows)
    assert len({r.text for r in rows}) > 40
    assert [f.name for f in sorted((sampled / "samples").iterdir())] == [
        "000000.parquet",
        "000001.parquet",
        "000002.parquet",
    ]


def test_the_token_ids_are_the_text_and_end_in_eos_only_if_generation_did(sampled, policy):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    for row in read_rows(Sample, sampled / "samples"):
        assert tokenizer.decode(row.token_ids, skip_special_tokens=True) == row.text
        assert (row.token_ids[-1] == tokenizer.eos_token_id) == (row.finish_reason == "stop")
        assert tokenizer.eos_token_id not in row.token_ids[:-1]


def test_an_answer_ends_where_the_template_ends_a_turn_though_eos_is_another_token(sampled, policy, tmp_path):
    """The very answers of before: only what the tokenizer and the model call EOS is another token."""
    other = Path(shutil.copytree(policy, tmp_path / "policy"))
    tokenizer = AutoTokenizer.from_pretrained(other)
    ends = tokenizer.eos_token_id
    tokenizer.eos_token = tiny.USER
    tokenizer.save_pretrained(other)
    for file in (other / "config.json", other / "generation_config.json"):
        settings = json.loads(file.read_text())
        file.write_text(json.dumps(settings | {"eos_token_id": tokenizer.eos_token_id}))
    program = GenerateProgram.model_validate_json((sampled / "generate.json").read_text())
    job = program.jobs[0].model_copy(update={"output": tmp_path / "samples"})
    (tmp_path / "generate.json").write_text(
        program.model_copy(update={"policy": other, "jobs": [job]}).model_dump_json()
    )
    generate(tmp_path / "generate.json")
    rows, before = (list(read_rows(Sample, folder / "samples")) for folder in (tmp_path, sampled))
    assert [(r.text, r.token_ids, r.finish_reason) for r in rows] == [
        (r.text, r.token_ids, r.finish_reason) for r in before
    ]
    assert stop_token_ids(tokenizer) == sorted((ends, tokenizer.eos_token_id))
    finished = [row for row in rows if not row.truncated]
    assert {row.token_ids[-1] for row in finished} == {ends} == {completion_token_ids(tokenizer, "4")[-1]}


def test_missing_shards_are_made_again_to_the_same_bytes_and_the_others_are_left_alone(sampled):
    shards = sorted((sampled / "samples").iterdir())
    before = [shard.read_bytes() for shard in shards]
    untouched = shards[2].stat().st_mtime_ns
    shards[0].unlink()
    shards[1].unlink()
    generate(sampled / "generate.json", anew=True)
    assert [shard.read_bytes() for shard in shards] == before
    assert shards[2].stat().st_mtime_ns == untouched


def test_until_enough_are_kept_the_answers_are_the_first_of_all_and_the_same_are_selected(sampled, tmp_path):
    program = GenerateProgram.model_validate_json((sampled / "generate.json").read_text())
    until = UntilKept(
        kept=1,
        min_reward=1.0,
        reward="final_answer",
        grader="final_answer@1",
        isolation="limits",
        workers=1,
        max_error_share=0.01,
        scores=tmp_path / "scores",
    )
    job = program.jobs[0].model_copy(update={"output": tmp_path / "samples", "until": until})
    (tmp_path / "generate.json").write_text(program.model_copy(update={"jobs": [job]}).model_dump_json())
    assert "not needed" in generate(tmp_path / "generate.json")
    whole = list(read_rows(Sample, sampled / "samples"))
    drawn = list(read_rows(Sample, tmp_path / "samples"))
    assert drawn == [row for row in whole if (row.problem_id, row.index) in {(r.problem_id, r.index) for r in drawn}]
    assert 40 < len(drawn) < len(whole)

    problems = list(read_rows(Problem, job.problems))
    known = [file_sha256(shard) for shard in parquet_files(tmp_path / "samples")]
    scores = [row for name in known for row in read_rows(Score, until.scores / f"{name}.parquet")]
    graded = score_samples(problems, whole, final_answer, until.grader, Tally())
    first = list(select_examples(problems, whole, graded, until.min_reward, until.kept, Counter()))
    assert list(select_examples(problems, drawn, scores, until.min_reward, until.kept, Counter())) == first != []


@pytest.mark.nightly
def test_killed_twenty_times_it_ends_with_the_same_bytes(policy, problems, tmp_path):
    """A finished shard stays; which others share the batch with an answer changes with every start."""
    folder, shards = tmp_path / "samples", 96
    chosen = [p for p in problems if p.split == "train"][: 4 * shards]
    config = write_program(tmp_path, policy, chosen, 4, 0.7)
    program = GenerateProgram.model_validate_json(config.read_text())
    slow = EngineConfig(max_num_seqs=8)  # so that few shards are finished between two looks
    jobs = [program.jobs[0].model_copy(update={"shard_size": 16})]
    config.write_text(program.model_copy(update={"jobs": jobs, "engine": slow}).model_dump_json())
    generate(config)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert len(whole) == shards
    shutil.rmtree(folder)
    kept: dict[str, int] = {}

    def another_shard() -> bool:
        return len(list(folder.glob("0*.parquet"))) > len(kept)

    for _ in range(20):
        process = subprocess.Popen(
            generate_command(config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=child_environment()
        )
        eventually(another_shard)
        process.kill()
        process.wait()
        found = {file.name: file.stat().st_mtime_ns for file in folder.glob("0*.parquet")}
        assert kept.items() <= found.items()
        kept = found
    assert len(kept) < shards
    generate(config, anew=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole


def test_greedy_answers_are_those_of_hugging_face_generate(policy, problems, tmp_path):
    """Also the proof that vLLM was fed the renderer's prompt ids and nothing else."""
    import torch
    from transformers import AutoModelForCausalLM

    chosen = [p for p in problems if p.split == "validation"][:24]
    generate(write_program(tmp_path, policy, chosen, 1, 0.0))
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    same = 0
    for problem, row in zip(chosen, read_rows(Sample, tmp_path / "samples"), strict=True):
        ids = torch.tensor([prompt_token_ids(tokenizer, problem.messages)])
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
        same += out[0, ids.shape[1] :].tolist() == row.token_ids
    # Rounding may tip a near-tie between two tokens; a different prompt would change nearly all.
    assert same >= 22


@pytest.mark.parametrize("base", shipped_bases(), ids=lambda base: base.name)
def test_the_bases_that_come_with_the_package_answer_as_their_records_say(base, problems, tmp_path):
    """Rounding differs from one processor to another: ten of 500 answers may."""
    chosen = [p for p in problems if p.split == "validation"]
    generate(write_program(tmp_path, BASES / base.name / POLICY, chosen, 1, 0.0))
    answers = [row.text for row in read_rows(Sample, tmp_path / "samples")]
    correct = sum(final_answer(p, text).verdict == "correct" for p, text in zip(chosen, answers, strict=True))
    assert base.validation.problems == len(answers) == 500
    assert correct / 500 == pytest.approx(base.validation.accuracy.value, abs=0.02)
    assert sum(map(shows_no_steps, answers)) / 500 == pytest.approx(base.validation.without_steps, abs=0.02)


def test_a_prompt_without_room_is_refused_before_the_engine_starts(policy, problems, tmp_path):
    config = write_program(tmp_path, policy, [p for p in problems if p.split == "train"][:1], 1, 0.0)
    program = json.loads(config.read_text())
    program["engine"]["max_model_len"] = 50
    config.write_text(json.dumps(program))
    with pytest.raises(AssertionError, match="does not fit into the context of 50"):
        generate(config)
