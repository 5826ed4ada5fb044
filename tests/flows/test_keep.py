"""`keep` in the loop: what is freed and when, what stays, and what a run can still do afterwards."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import rest_em, spin
from flows.commands.cli import main
from tasks.history.state import State, run_state
from tasks.history.verify import freed_in, verify_run
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.settings.loop import LoopConfig
from tasks.stage import freed
from tasks.stage.contract import OnDrift, Status
from tasks.stage.freed import FREED, read_freed
from tasks.stage.process import ChildError
from tasks.stage.run import Run
from tasks.tracking.mlflow import open_registry
from tasks.tracking.registry import Registry
from tests.flows.conftest import copy_runs, make_config, make_spin, prepared
from tests.flows.test_rest_em import digests, times

MAKE: dict[str, Callable[..., Any]] = {"rest-em": make_config, "spin": make_spin}
LOOPS: dict[str, Callable[..., Any]] = {"rest-em": rest_em.loop, "spin": spin.loop}
SKILLS = "[0.6, 0.9, 0.5]"  # of SPIN's policies, so that the second is the best

pytestmark = pytest.mark.usefixtures("stubs")


class Killed(BaseException):
    """The process ends here."""


def killed(*_: Any) -> None:
    raise Killed


def run(flow: str, config: LoopConfig, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    return run_loop(flow, LOOPS[flow], config, on_drift)


def weights(config: LoopConfig) -> list[int]:
    """The iterations whose weights are on the disk."""
    return sorted(int(file.parents[2].name[5:]) for file in config.directory.glob("iter-*/train/policy/*.safetensors"))


def records(config: LoopConfig) -> list[int]:
    """The iterations of which a record says that all is freed."""
    found = {int(file.parents[1].name[5:]): read_freed(file.parent) for file in config.directory.glob(f"*/*/{FREED}")}
    return sorted(number for number, record in found.items() if record and record.done)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, LoopConfig]:
    """Finished runs of three iterations, by flow and `keep`. Only to be copied."""
    made = {}
    for flow, keep in (("spin", "all"), ("spin", "best"), ("rest-em", "best")):
        with prepared(cache), pytest.MonkeyPatch.context() as patch:  # each keeps a history of its own
            patch.setenv("STUB_SKILLS", SKILLS)
            name = f"{flow} {keep}"
            made[name] = MAKE[flow](tmp_path_factory.mktemp("finished"), iterations=3, keep=keep)
            run(flow, made[name])
    return made


@pytest.fixture
def copied(finished: dict[str, LoopConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Copies a finished run, and gives its settings with changes."""
    monkeypatch.setenv("STUB_SKILLS", SKILLS)

    def copy(name: str, **changes: Any) -> LoopConfig:
        flow, _, keep = name.partition(" ")
        copy_runs(finished[name], tmp_path)  # type: ignore[arg-type]
        config: LoopConfig = MAKE[flow](tmp_path, iterations=3, **{"keep": keep} | changes)
        return config

    return copy


@pytest.mark.parametrize("flow", MAKE)
def test_with_keep_best_the_others_are_freed_and_the_run_is_whole(flow, copied, finished, monkeypatch):
    config = copied(f"{flow} best")
    best = json.loads((config.directory / "summary.json").read_text())["best_iteration"]
    others = sorted({1, 2, 3} - {best})
    assert (weights(config), records(config)) == ([best], others)
    assert (config.directory / "best/policy/model.safetensors").exists()
    if flow == "spin":
        assert digests(config) == digests(finished["spin all"]), "what was freed had no part in what came after"
    assert verify_run(config.directory) == []
    assert [sentence.split(": ", 1)[1][:13] for sentence in freed_in(config.directory)] == ["1 file freed "] * 2
    assert run_state(config.directory).state is State.FINISHED
    before = times(config)
    monkeypatch.setattr(Run, "start", lambda *_: pytest.fail("a program was started"))
    run(flow, config)
    assert times(config) == before
    assert {p.status for p in plan_loop(LOOPS[flow], config, OnDrift.REFUSE).plan} == {Status.REUSE}


def test_the_best_and_the_opponent_of_the_next_iteration_stay_while_the_loop_goes_on(tmp_path, monkeypatch):
    config = make_spin(tmp_path, iterations=3, keep="best")
    monkeypatch.setenv("STUB_SKILLS", "[0.6, 0.5, 0.9]")
    monkeypatch.setenv("STUB_CRASH", "iter-3/train")
    with pytest.raises(ChildError):
        run("spin", config)
    assert weights(config) == [1, 2], "1 is the best, and 2 the opponent of the next"
    monkeypatch.delenv("STUB_CRASH")
    registry = open_registry(config.runs_dir)
    (first,) = (v for v in registry.versions("autodidact-stub") if v.tags["iteration"] == "1")
    registry.client.set_registered_model_alias(first.model, "mine", first.number)
    assert run("spin", config)["best_iteration"] == 3
    assert weights(config) == [1, 3], "the registry's alias holds the first"


def test_changing_keep_is_no_drift_and_frees_what_is_no_longer_kept(copied):
    config = copied("spin all", keep="last-2")
    before = times(config)
    run("spin", config)
    assert (weights(config), times(config)) == ([2, 3], before)


def test_killed_while_it_frees_a_run_is_whole_and_the_next_start_completes_it(copied, monkeypatch):
    config = copied("spin all", keep="best")
    (config.directory / "summary.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(freed, "flush", killed)  # the intent is written, and nothing is removed
        with pytest.raises(Killed):
            run("spin", config)
    assert (weights(config), records(config)) == ([1, 2, 3], [])
    assert verify_run(config.directory) == []
    run("spin", config)
    assert (weights(config), records(config)) == ([2], [1, 3])
    assert verify_run(config.directory) == []


def test_where_the_registry_does_not_answer_nothing_is_freed_and_the_loop_goes_on(copied, monkeypatch):
    from mlflow.exceptions import MlflowException

    def refuses(*_: Any) -> Any:
        raise MlflowException("down")

    config = copied("spin all", keep="best")
    monkeypatch.setattr(Registry, "holding", refuses)
    assert run("spin", config)["best_iteration"] == 2
    assert weights(config) == [1, 2, 3]


def test_rebuild_makes_just_the_weights_again_that_are_needed(copied):
    config = copied("spin best")
    before, made = digests(config), times(config)
    shutil.rmtree(config.directory / "iter-1/evaluate")
    run("spin", config, OnDrift.REBUILD)
    again = {name.removeprefix(f"{config.directory}/") for name, at in times(config).items() if made.get(name) != at}
    assert again == {"iter-1/train", "iter-1/evaluate"}
    assert digests(config) == before
    assert weights(config) == [2], "and it is freed again"


def test_trace_says_that_the_checkpoint_was_freed_with_its_digest(copied, capsys):
    config = copied("spin best")
    assert main(["trace", config.run, "--runs-dir", str(config.runs_dir)]) == 0
    key = re.search(r"iter-2/[0-9a-f]+/\d+", capsys.readouterr().out)
    assert key
    assert main(["trace", config.run, key[0], "--runs-dir", str(config.runs_dir)]) == 0
    told = capsys.readouterr().out
    assert "its weights are gone, 1 file freed on" in told
    assert json.loads((config.directory / "iter-2/generate/manifest.json").read_text())["inputs"]["policy"] in told
