"""What a run's log says and what it leaves out: libraries' chatter, Prefect's bookkeeping, how stages end."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data.scoring import Tally
from data.stopping import all_done
from data.wording import and_left_out, counted
from tasks.datasets.select import SelectConfig, selected
from tasks.rollouts.score import scored
from tasks.stage.contract import Finished, Outcome, Stage, run_stage
from tasks.stage.noise import is_noise, tells_something
from tasks.stage.run import ending

NUMA = "Using MEMBIND policy for memory allocation on the NUMA nodes (0). (function init_cpu_memory_env)"


@pytest.mark.parametrize(
    "line",
    [
        "Triton is installed, but doesn't include CPU backend. Disabling Triton.",
        f"[W1129 13:45:48.033701690 utils.cpp:68] Warning: NUMA binding: {NUMA}",
        f"[rank0]:[W1129 13:45:48.033701690 utils.cpp:68] Warning: NUMA binding: {NUMA}",
        "Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]",
        "(Worker pid=12) Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 107.73it/s]",
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  50%|█████     | 1/2 [00:00<00:00]",
        "Failed to load CPU gemm_4bit_forward from kernels-community: No module named 'kernels'.",
        "[2026-11-29 13:45:48,033] [INFO] [real_accelerator.py:260:get_accelerator] Setting ds_accelerator to cpu",
        "[RANK 0] Gradient accumulation steps mismatch: GradientAccumulationPlugin has 1, DeepSpeed config has 2. "
        "Using DeepSpeed's value.",
        "[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1",
    ],
)
def test_what_libraries_say_of_themselves_is_noise(line: str) -> None:
    assert is_noise(line)


@pytest.mark.parametrize(
    "line",
    [
        "[W1129 13:45:48.033701690 utils.cpp:68] Warning: the sizes of two tensors differ",
        "[2026-11-29 13:45:48,033] [WARNING] [engine.py:12:step] overflow",
        "(EngineCore_DP0 pid=12) ERROR 11-29 13:45:48 [core.py:12] EngineCore failed to start.",
        "WARNING 11-29 13:45:48 [config.py:12] The model has no weights for lm_head",
        "W1129 13:45:48.033000 12 torch/distributed/run.py:766] A process was lost",
        "Loading safetensors checkpoint shards failed",
        "RuntimeError: Triton is installed, but doesn't include CPU backend",
        "train:  21%|████| 280/1316 [02:35<09:35, 1.80step/s, loss 0.4997]",
        "8,000 answers at 31,234 tokens/s",
    ],
)
def test_a_real_warning_or_error_passes(line: str) -> None:
    assert not is_noise(line)


@pytest.mark.parametrize(
    ("level", "message", "passes"),
    [
        (logging.INFO, "Finished in state Completed()", False),
        (logging.INFO, "Beginning flow run 'demo' for flow 'rest-em'", False),
        (logging.INFO, "Starting temporary server on http://127.0.0.1:8532\nSee https://docs.prefect.io", False),
        (logging.ERROR, "Finished in state Failed('it is out of memory')", True),
        (logging.INFO, "Finished in state Cancelled()", True),
        (logging.WARNING, "Starting temporary server on a port in use", True),
        (logging.INFO, "iter-1/score: 8,000 answers scored", True),
    ],
)
def test_prefect_s_bookkeeping_is_left_out_and_its_warnings_are_not(level: int, message: str, passes: bool) -> None:
    record = logging.LogRecord("prefect.task_runs", level, "", 0, message, None, None)
    assert tells_something(record) == passes


@pytest.mark.parametrize(
    ("verdicts", "truncated", "says"),
    [
        (
            {"correct": 6560, "wrong": 9428, "timeout": 2, "error": 10},
            30,
            "16,000 answers scored, 41 % correct, 12 could not be graded, 30 cut off at the token limit",
        ),
        ({"correct": 1}, 0, "1 answer scored, 100 % correct"),
        ({}, 0, "0 answers scored, 0 % correct"),
    ],
)
def test_a_score_says_how_many_are_correct_and_how_many_could_not_be_graded(
    verdicts: dict[str, int], truncated: int, says: str
) -> None:
    assert scored(Tally(Counter(verdicts), truncated)) == says


@pytest.mark.parametrize(
    ("counts", "config", "says"),
    [
        (
            {"samples": 16000, "kept": 1797, "duplicate": 4500, "over_limit": 13, "wrong": 9690},
            SelectConfig(),
            "1,797 of 6,310 correct answers kept (≤ 10 per problem, distinct)",
        ),
        (
            {"samples": 2, "kept": 1, "wrong": 1},
            SelectConfig(min_reward=4, max_per_problem=1),
            "1 of 1 answer with a reward of at least 4 kept (≤ 1 per problem, distinct)",
        ),
    ],
)
def test_a_selection_says_how_many_were_kept_of_how_many(counts: dict[str, int], config: SelectConfig, says: str):
    assert selected(Counter(counts), config) == says


def test_a_stage_ends_with_one_line_and_looks_reused_where_it_is(tmp_path: Path) -> None:
    def work(attempt: Path) -> Outcome:
        (attempt / "rows").touch()
        return Outcome(said="3 rows")

    stage = Stage("iter-1/score", 1, {}, {})
    made = run_stage(tmp_path, stage, work)
    assert ending(made) == "iter-1/score: 3 rows"
    assert ending(lasting(made, 75)) == "iter-1/score: 3 rows (1 min 15 s)"
    assert ending(replace(lasting(made, 75), said="")) == "iter-1/score: finished (1 min 15 s)"
    assert ending(run_stage(tmp_path, stage, work)) == "iter-1/score: finished before, reused"


def lasting(finished: Finished, seconds: int) -> Finished:
    times = {"started": "2026-01-01T00:00:00", "ended": f"2026-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}"}
    return replace(finished, manifest=finished.manifest.model_copy(update=times))


@pytest.mark.parametrize(
    ("number", "says"), [(0, "0 rows"), (1, "1 row"), (1.0, "1 row"), (2.5, "2.5 rows"), (2000, "2,000 rows")]
)
def test_a_count_fits_its_noun(number: float, says: str) -> None:
    assert counted(number, "row") == says


def test_counts_are_worded() -> None:
    assert counted(2, "reply", "replies") == "2 replies"
    assert (all_done(1), all_done(2)) == ("its only iteration is done", "all 2 iterations are done")
    assert and_left_out({"near_duplicate": 1200, "empty": 0}) == "; left out: 1,200 near duplicate"
    assert and_left_out({}) == ""
