"""Real generation: reproducible, resumable at shards, and from exactly the prompt ids that training uses."""

import json
from pathlib import Path

import pytest

from data.rows import Problem, Sample
from data.storage import read_rows, write_rows
from models.config import EngineConfig, GenerateJob, GenerateProgram, SamplingConfig
from tests.e2e.conftest import generate


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
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(policy)
    for row in read_rows(Sample, sampled / "samples"):
        assert tokenizer.decode(row.token_ids, skip_special_tokens=True) == row.text
        assert (row.token_ids[-1] == tokenizer.eos_token_id) == (row.finish_reason == "stop")
        assert tokenizer.eos_token_id not in row.token_ids[:-1]


def test_missing_shards_are_made_again_to_the_same_bytes_and_the_others_are_left_alone(sampled):
    shards = sorted((sampled / "samples").iterdir())
    before = [shard.read_bytes() for shard in shards]
    untouched = shards[2].stat().st_mtime_ns
    shards[0].unlink()
    shards[1].unlink()
    generate(sampled / "generate.json", anew=True)
    assert [shard.read_bytes() for shard in shards] == before
    assert shards[2].stat().st_mtime_ns == untouched


def test_greedy_answers_are_those_of_hugging_face_generate(policy, problems, tmp_path):
    """Also the proof that vLLM was fed the renderer's prompt ids and nothing else."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from data.render import prompt_token_ids

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


def test_a_prompt_without_room_is_refused_before_the_engine_starts(policy, problems, tmp_path):
    config = write_program(tmp_path, policy, [p for p in problems if p.split == "train"][:1], 1, 0.0)
    program = json.loads(config.read_text())
    program["engine"]["max_model_len"] = 50
    config.write_text(json.dumps(program))
    with pytest.raises(AssertionError, match="does not fit into the context of 50"):
        generate(config)
