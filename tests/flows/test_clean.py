"""`autodidact clean`, and what is refused or left alone where weights were freed: on a finished run laid out anew."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import rest_em, spin
from flows.commands import console, upkeep
from flows.commands.cli import main
from tasks.history.runs import load_history
from tasks.history.state import State, run_state
from tasks.loop import preflight
from tasks.loop.preflight import check, plan_loop
from tasks.stage import freed
from tasks.stage.contract import OnDrift, Status
from tasks.stage.freed import FreedError, free, read_freed
from tasks.tracking.mlflow import open_registry
from tests.flows.conftest import make_config, make_history
from tests.flows.kept_runs import lay_out
from tests.unit.tasks.test_run import another_process_holds

RUN = "spin-demo"  # of two iterations, the second of which is the best
Text = pytest.CaptureFixture[str]
Clean = Callable[..., int]


class Killed(BaseException):
    """The process ends here."""


def killed(*_: Any) -> None:
    raise Killed


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_history(tmp_path / "runs")
    lay_out(RUN, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def clean(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Clean:
    monkeypatch.setattr(upkeep, "prepare", lambda runs: None)
    return lambda *arguments: main(["clean", RUN, "--runs-dir", str(runs), *arguments])


def settings(runs: Path, **changes: Any) -> spin.Spin:
    told = json.loads((runs / RUN / "config.json").read_text())
    del told["algorithm"], told["decided_by"]
    return spin.Spin.model_validate(told | changes)


def train(runs: Path, number: int) -> Path:
    return runs / RUN / f"iter-{number}" / "train"


def weights(runs: Path) -> list[int]:
    """The iterations whose weights are on the disk."""
    return [number for number in (1, 2) if (train(runs, number) / "policy" / "model.safetensors").exists()]


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, reply: str) -> list[str]:
    """Give that reply to every question; returns the questions as they are asked."""
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: (asked.append(question), reply)[1])
    return asked


def test_it_says_what_goes_and_what_stays_and_asks(
    runs: Path, clean: Clean, monkeypatch: pytest.MonkeyPatch, capsys: Text
) -> None:
    asked = at_a_terminal(monkeypatch, "n")
    assert clean() == 0
    told = capsys.readouterr().out
    assert "stays: iteration 2, the best one\n" in told and "Nothing was freed." in told
    assert f"goes:  {train(runs, 1) / 'policy'}, 4.1 MB of weights\n" in told
    assert asked == ["Free 4.1 MB for good? [y/N] "] and weights(runs) == [1, 2]
    at_a_terminal(monkeypatch, "y")
    assert clean() == 0
    assert weights(runs) == [2] and "1 file freed on" in capsys.readouterr().out
    record = read_freed(train(runs, 1))
    assert record is not None and (record.by, record.bytes, record.done) == ("clean --keep best", 4071968, True)
    assert load_history(runs / RUN).broken == {} and run_state(runs / RUN).state is State.FINISHED
    assert clean() == 0
    assert f"Nothing of {RUN} is left to free." in capsys.readouterr().out


def test_without_a_terminal_it_needs_yes(runs: Path, clean: Clean, capsys: Text) -> None:
    assert clean() == 2
    assert "there is no terminal to ask at. Nothing was freed. Give --yes" in capsys.readouterr().err
    assert weights(runs) == [1, 2]
    assert clean("--yes") == 0
    assert weights(runs) == [2]


@pytest.mark.parametrize(("keep", "code", "left"), [("last-2", 0, [1, 2]), ("last 1", 0, [2]), ("all", 2, [1, 2])])
def test_it_keeps_the_best_or_the_last_few(keep: str, code: int, left: list[int], runs: Path, clean: Clean) -> None:
    assert clean("--keep", keep, "--yes") == code
    assert weights(runs) == left


def test_it_leaves_a_run_that_is_under_way_alone(runs: Path, clean: Clean, capsys: Text) -> None:
    with another_process_holds(runs / RUN) as holder:
        assert clean("--yes") == 2
    assert f"is in use by process {holder.pid}" in capsys.readouterr().err
    assert weights(runs) == [1, 2]


@pytest.mark.parametrize(
    ("missing", "left"),
    [((), [2]), (("final/best",), [2]), (("iter-2/likelihood",), [1, 2]), (("iter-2/train",), [1])],
)
def test_it_leaves_what_an_unfinished_run_goes_on_from(
    missing: tuple[str, ...], left: list[int], runs: Path, clean: Clean
) -> None:
    (runs / RUN / "summary.json").unlink()
    for stage in missing:
        shutil.rmtree(runs / RUN / stage)
    assert clean("--yes") == 0
    assert weights(runs) == left


def test_while_a_person_may_still_choose_it_frees_nothing(runs: Path, clean: Clean, capsys: Text) -> None:
    file = runs / RUN / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"approve": True}))
    (runs / RUN / "summary.json").unlink()
    assert clean("--yes") == 0
    assert "stays: iteration 1, a reviewer may still choose it" in capsys.readouterr().out
    assert weights(runs) == [1, 2]


@pytest.mark.parametrize("why", ["alias", "champion before", "by hand", "automatic"])
def test_it_leaves_what_the_registry_needs(why: str, runs: Path, clean: Clean, capsys: Text) -> None:
    client = open_registry(runs).client
    policy = train(runs, 1) / "policy"
    model = json.loads((runs / RUN / "config.json").read_text())["registry"]
    tags = {} if why == "by hand" else {"path": str(policy), "digest": "d", "run": RUN}
    tags |= {"champion_since": "2026-01-01"} if why == "champion before" else {}
    client.create_registered_model(model)
    version = client.create_model_version(model, source=policy.as_uri(), tags=tags).version
    if why == "alias":
        client.set_registered_model_alias(model, "mine", version)
    assert clean("--yes") == 0
    assert (weights(runs) == [2]) == (why == "automatic")
    told = capsys.readouterr().out
    assert (f"stays: iteration 1, version {version} of {model}" in told) == (why != "automatic")
    if why == "automatic":
        assert main(["promote", model, str(version), "--runs-dir", str(runs)]) == 2
        assert f"{policy} no longer has weights: 1 file freed on" in capsys.readouterr().err


def test_it_leaves_what_another_run_begins_with(runs: Path, clean: Clean, capsys: Text) -> None:
    link = runs / "next/base/policy/model.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to((train(runs, 1) / "policy/model.safetensors").resolve())
    assert clean("--yes") == 0
    assert "stays: iteration 1, the run next starts from it" in capsys.readouterr().out
    assert weights(runs) == [1, 2]


def test_killed_it_is_completed_by_the_next_start_of_the_finished_run(
    runs: Path, clean: Clean, monkeypatch: pytest.MonkeyPatch, capsys: Text
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(freed, "flush", killed)  # the intent is written, and nothing is removed
        with pytest.raises(Killed):
            clean("--yes")
    assert weights(runs) == [1, 2] and load_history(runs / RUN).broken == {}
    monkeypatch.setattr(console, "check", lambda loop, config, on_drift: plan_loop(spin.loop, config, on_drift))
    monkeypatch.setattr(console, "show_summary", lambda directory: None)
    flow: Any = type("Flow", (), {"loop": staticmethod(spin.loop)})
    assert console.run_flow(flow, settings(runs), False, "refuse") == 0
    assert weights(runs) == [2] and "nothing is left to do" in capsys.readouterr().out


def test_freed_weights_are_no_drift_and_what_needs_them_says_so(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check_problems", lambda *_: None)  # of a run laid out anew they are not there
    free(train(runs, 1), "keep: best")
    planned = plan_loop(spin.loop, settings(runs, keep="best"), OnDrift.REFUSE)
    assert {p.status for p in planned.plan} == {Status.REUSE} and planned.lacking == {}
    shutil.rmtree(runs / RUN / "iter-1" / "evaluate")
    with pytest.raises(FreedError, match=r"iter-1/evaluate needs the weights of iter-1/train, .* 1 file freed on") as e:
        check(spin.loop, settings(runs), OnDrift.REFUSE)
    assert "by keep: best. Run the same command again with --on-drift rebuild" in str(e.value)
    assert str(runs / RUN / "best" / "policy") in str(e.value)


def test_another_run_cannot_begin_with_freed_weights_and_is_told_why(runs: Path, tmp_path: Path) -> None:
    free(train(runs, 1), "keep: best")
    gone = train(runs, 1) / "policy"
    with pytest.raises(FreedError, match=rf"{gone} no longer has weights: 1 file freed on .* by keep: best\. Use"):
        check(rest_em.loop, make_config(tmp_path, run="next", model=str(gone)), OnDrift.REFUSE)
