"""However a command ends: one plain message at the most, the right exit code, and never a traceback."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from flows.commands import exits
from flows.commands.cli import COMMANDS, main
from flows.commands.flow_table import own_flows

AUTODIDACT = Path(sys.executable).with_name("autodidact")
# The same, telling when Python itself has started: before that nobody can answer Ctrl-C.
TOLD = "import sys; from flows.commands import start; print('started', flush=True); sys.exit(start.main())"
ROOT = Path(__file__).parents[3]
MOMENTS = 12

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n' * 50)
    (tmp_path / "bell.jsonl").write_text('{"question": "\\u202e1+1?", "answer": "\\u009b31m 2"}\n')
    (tmp_path / "no.csv").mkdir()
    (tmp_path / "bad.jinja").write_bytes(b"\xff")
    (tmp_path / "digits.json").write_text(f'[{{"a": {"1" * 5000}}}]')
    (tmp_path / "self.yaml").write_text("a: &a [*a]")
    (tmp_path / "number.yaml").write_text("run: 2026-11-28")
    return tmp_path


def started(site: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "AUTODIDACT_CACHE": str(site / "cache")} | options.pop("env", {})
    told = {"cwd": site, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    program = options.pop("program", [AUTODIDACT])
    return subprocess.Popen([*program, *arguments], env=environment, **told | options)


def ended(site: Path, *arguments: str, **options: Any) -> tuple[int, str, str]:
    process = started(site, *arguments, **options)
    out, error = process.communicate(timeout=600)
    return process.returncode, out, error


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["rest-me"], 2, "did you mean rest-em?"),
        (["rest-em", "--runn", "x"], 2, "did you mean --run?"),
        (["rest-em", "--config", "self.yaml"], 2, "more than 10,000 values"),
        (["rest-em", "--config", "number.yaml"], 2, "put it in quotes"),
        (["rest-em", "--run", "x" * 300], 2, "at most 100 characters"),
        (["rest-em", "--run", "prefect"], 2, "is reserved"),
        (["rest-em", "--runs-dir", "a?b"], 2, "has a question mark in it"),
        (["rest-em", "--runs-dir", "a\0b"], 2, "contains a NUL"),
        (["rest-em", "--config=~/none.yaml"], 2, "there is no configuration file /home/ada/none.yaml"),
        (["runs", "--runs-dir=~/none"], 2, "there is no folder /home/ada/none"),
        (["rest-em", "--template", "bad.jinja"], 2, "bad.jinja cannot be read"),
        (["sft", "--train", "x"], 2, "a group of settings got a single value"),
        (["sft", "--placeholders", "{name: Ada}"], 2, "Write --placeholders KEY=VALUE"),
        (["data", "inspect", "digits.json"], 2, "malformed JSON"),
        (["rest-em", "--reward.name", "judge"], 2, "The judge has no model. Give its `model`"),
        (["rest-em", "--train.learning-rate", "inf"], 2, "finite number"),
        (["data"], 2, "See autodidact data --help."),
        (["data", "inspect", "[/]"], 2, "There is no file [/]."),
        (["data", "inspect", "\x1b[2J"], 2, "There is no file \\x1b[2J."),
        (["data", "inspect", "no.csv"], 2, "holds no data file"),
        (["data", "format", "rows.jsonl", "--output", "rows.jsonl/x"], 2, "rows.jsonl"),
        (["runs", "--runs-dir", "nowhere"], 2, "there is no folder nowhere"),
        (["trace", "nothing"], 2, "has no run 'nothing'"),
        (["verify"], 2, "the following arguments are required: RUN. See autodidact verify --help."),
        (["up", "--prefect-port", "many"], 2, "'many' is not a port"),
        (["status", "--foo"], 2, "--foo"),
    ],
    ids=lambda value: " ".join(value)[:40].replace("\x1b", "ESC") if isinstance(value, list) else "",
)
def test_a_wrong_command_says_so_and_ends_with_code_2(
    site: Path, arguments: list[str], code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (site / "runs").mkdir()
    monkeypatch.chdir(site)
    monkeypatch.setenv("HOME", "/home/ada")
    with mock.patch.dict(os.environ, AUTODIDACT_CACHE=str(site / "cache")):
        returned = main(arguments)
    error = capsys.readouterr().err
    assert (returned, says in error) == (code, True), error
    assert error.startswith("autodidact: ") and "Traceback" not in error and "\x1b" not in error


@pytest.mark.parametrize("arguments", [["data", "inspect", "rows.jsonl"], ["rest-em", "--help"], ["runs"]])
def test_a_closed_pipe_ends_a_command_without_a_word(site: Path, arguments: list[str]) -> None:
    (site / "runs").mkdir()
    process = started(site, *arguments)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", exits.NOBODY_READS)


def test_a_full_disk_under_the_output_is_named(site: Path) -> None:
    with open("/dev/full", "w") as full:
        code, _, error = ended(site, "runs", "--help", stdout=full)
    assert (code, error) == (
        1,
        "autodidact: the output: No space left on device. Make room there, and run the same command again.\n",
    )


def test_a_terminal_that_knows_ascii_only_gets_ascii(site: Path) -> None:
    code, out, error = ended(
        site, "data", "inspect", "bell.jsonl", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert (code, error) == (0, "")
    assert out.isascii() and "1+1?" in out and "\\u202e" in out and "\\x9b31m" in out


def test_a_dry_run_writes_nothing(site: Path) -> None:
    before = sorted(site.rglob("*"))
    code, out, error = ended(site, "rest-em", "--dry-run", env={"HOME": str(site)})
    assert (code, error) == (0, ""), error
    assert "iter-1/train" in out
    assert sorted(site.rglob("*")) == before


def test_modules_of_the_user_do_not_hide_those_of_the_command(site: Path) -> None:
    for name in ("data", "models", "tasks", "flows"):
        (site / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    assert ended(site, "data", "inspect", "rows.jsonl")[0] == 0
    code, _, error = ended(site, "runs", env={"PYTHONPATH": os.pathsep.join([str(site / "more"), str(ROOT)])})
    assert code == 2 and "there is no folder" in error
    (site / "more").mkdir()
    (site / "more" / "models.py").write_text("")
    code, _, error = ended(site, "runs", env={"PYTHONPATH": os.pathsep.join([str(site / "more"), str(ROOT)])})
    assert code == 2 and error.startswith(
        f"autodidact: Python finds {site / 'more' / 'models.py'} instead of this project's"
    )


COMMAND_LINES = {
    "data": ["data", "inspect", "rows.jsonl"],
    "rest-em": ["rest-em"],
    "runs": ["runs"],
    "promote": ["promote", "model", "1"],
    "status": ["status"],
    "spin": ["spin", "--dry-run"],
}


@pytest.mark.parametrize("number", range(MOMENTS))
def test_ctrl_c_ends_a_command_with_one_line_at_any_moment(site: Path, number: int) -> None:
    assert COMMAND_LINES.keys() <= COMMANDS.keys() | own_flows().keys()
    (site / "runs").mkdir()
    chance = random.Random(number)
    process = started(site, *chance.choice(list(COMMAND_LINES.values())), program=[sys.executable, "-c", TOLD])
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    time.sleep(chance.uniform(0.02, 2.0))
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    stopped = process.returncode == 130 and error.startswith("autodidact: stopped.") and error.count("\n") == 1
    finished = process.returncode in (0, 1, 2) and error.count("autodidact: ") == (process.returncode == 2)
    assert stopped or finished, (process.args, process.returncode, error)
    assert "Traceback" not in error


def test_a_fault_of_the_project_still_shows_where_it_is() -> None:
    def broken() -> int:
        raise KeyError("a fault")

    with pytest.raises(KeyError):
        exits.ended_plainly(broken)
