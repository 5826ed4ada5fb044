"""Which checkpoint a command means."""

import json
from pathlib import Path

import pytest

from data.errors import AutodidactError
from tasks.history.checkpoint import find_checkpoint
from tasks.stage.contract import Outcome, Stage, run_stage
from tasks.stage.freed import free
from tests.flows.stubs.common import write_weights

CAUSAL, SCORES = "LlamaForCausalLM", "LlamaForSequenceClassification"


def make_policy(run: Path, stage: str, architecture: str = CAUSAL) -> Path:
    def work(attempt: Path) -> Outcome:
        (attempt / "policy").mkdir()
        (attempt / "policy" / "config.json").write_text(json.dumps({"architectures": [architecture]}))
        write_weights(attempt / "policy")
        (attempt / "policy" / "tokenizer.json").write_text("{}")
        (attempt / "best.json").write_text('{"iteration": 1}')
        return Outcome()

    return run_stage(run, Stage(stage, 1, {}, {}), work).path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, one that has a base and an iteration, one that has nothing yet, and a reward model's."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    for stage in ("base", "iter-1/train", "iter-2/train", "best"):
        make_policy(runs / "demo", stage)
    settings = {"algorithm": "ReST-EM", "system": "Be brief.", "model_code": "allow"}
    drawn = {"generate": {"temperature": 0.5, "dtype": "float32"}, "engine": {"cpu_kv_cache_gib": 2}}
    (runs / "demo" / "config.json").write_text(json.dumps(settings | drawn))
    for stage in ("base", "iter-1/train"):
        make_policy(runs / "young", stage)
    run_stage(runs / "empty", Stage("problems", 1, {}, {}), lambda attempt: Outcome())
    for stage in ("base", "best"):
        make_policy(runs / "scores", stage, SCORES)
    return runs


@pytest.mark.parametrize(
    ("told", "place", "about"),
    [
        ("demo", "runs/demo/best/policy", "iteration 1, the best of the run demo (ReST-EM)"),
        ("demo/base", "runs/demo/base/policy", "the base of the run demo (ReST-EM)"),
        ("demo/iter-2", "runs/demo/iter-2/train/policy", "iteration 2 of the run demo (ReST-EM)"),
        ("young", "runs/young/iter-1/train/policy", "iteration 1 of the run young"),
        ("runs/demo/base/policy", "runs/demo/base/policy", "not the result of a run here"),
    ],
)
def test_a_checkpoint_is_found_by_its_run_or_its_folder(runs: Path, told: str, place: str, about: str) -> None:
    found = find_checkpoint(Path("runs"), told)
    assert (found.folder.absolute(), found.about) == (Path(place).absolute(), about)


def test_a_run_says_how_it_is_asked(runs: Path) -> None:
    found = find_checkpoint(runs, "demo")
    assert (found.system, found.model_code, found.sampling.temperature) == ("Be brief.", "allow", 0.5)
    assert found.engine.cpu_kv_cache_gib == 2
    young = find_checkpoint(runs, "young")
    assert (young.system, young.model_code, young.sampling.temperature) == (None, "refuse", 0.0)


def test_the_base_beside_a_checkpoint_is_its_runs(runs: Path) -> None:
    demo = find_checkpoint(runs, "demo")
    assert find_checkpoint(runs, "base", beside=demo).name == "demo/base"
    assert find_checkpoint(runs, "iter-1", beside=find_checkpoint(runs, "demo/base")).name == "demo/iter-1"
    assert find_checkpoint(runs, "young", beside=demo).name == "young/iter-1"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("empty", "empty has no policy yet"),
        ("demo/iter-7", "no policy iter-7. Choose from demo/base"),
        ("other", "neither a run in .* nor a model's folder. Runs: demo, empty, scores, young"),
        ("scores", "is a reward model"),
        ("runs/scores/best/policy", "is a reward model"),
        ("runs/empty", "is not a model"),
        ("./nowhere", "is not a model|no folder|does not exist"),
    ],
)
def test_what_is_no_policy_is_refused_in_plain_words(runs: Path, told: str, said: str) -> None:
    with pytest.raises(AutodidactError, match=said):
        find_checkpoint(runs, told)


def test_freed_weights_are_named(runs: Path) -> None:
    free(runs / "demo" / "iter-2" / "train", "keep: best")
    for told in ("demo/iter-2", "runs/demo/iter-2/train/policy"):
        with pytest.raises(AutodidactError, match=r"no longer has weights: .* freed on .* by keep: best"):
            find_checkpoint(runs, told)
