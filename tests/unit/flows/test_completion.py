"""`autodidact completion`: the script for bash is run in bash, and completes what the parsers know."""

import subprocess
from pathlib import Path

import pytest

from flows.commands.cli import COMMANDS, main
from flows.commands.flow_table import own_flows

ROOT = Path(__file__).parents[3]
ASK = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_shtab_autodidact
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory):
    """What bash would offer for the last of some words."""
    file = tmp_path_factory.mktemp("completion") / "autodidact.bash"
    with file.open("w") as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert main(["completion", "bash"]) == 0

    def complete(*words: str) -> list[str]:
        ask = ["bash", "-c", ASK, "bash", str(file), "autodidact", *words]
        done = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["re"], ["rest-em", "reward-model", "reconcile"]),
        (["rest-em", "--train.le"], ["--train.learning-rate"]),
        (["sft", "--demo"], ["--demonstrations"]),
        (["rest-em", "--seed", "3", "--limit-t"], ["--limit-test", "--limit-transfer"]),
        (["rest-em", "--stop.rule", ""], ["paper", "patience", "discriminator", "overoptimized", "none"]),
        (["spin", "--train.schedule", "co"], ["cosine", "constant_with_warmup"]),
        (["rest-em", "--approve", ""], ["on", "off"]),
        (["rest-em", "--dry-run", "--on-drift", "re"], ["refuse", "rebuild"]),
        (["rest-em", "--config", "configs/de"], ["configs/demo.yaml"]),
        (["dpo", "--pairs", "pyproj"], ["pyproject.toml"]),
        (["dpo", "--model", "mod"], ["models"]),
        (["data", ""], ["inspect", "format"]),
        (["data", "format", "--write-prompts.e"], ["--write-prompts.endpoint"]),
        (["data", "inspect", "--reasoning", ""], ["leave", "keep"]),
        (["compare", "--set", ""], ["validation", "test", "transfer"]),
        (["trace", "--runs-dir", "deploym"], ["deployments"]),
        (["status", "--k"], ["--key"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["rest-em", "--limit_"], []),
    ],
)
def test_bash_completes_flows_commands_flags_and_values(completed, words: list[str], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_every_flow_and_command_is_offered(completed) -> None:
    assert completed("") == [*own_flows(), *COMMANDS]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_that_names_every_flow_and_flag(shell: str, capsys) -> None:
    told = script(shell, capsys)
    assert all(words in told for words in (*own_flows(), *COMMANDS, "train.learning-rate", "write-prompts.endpoint"))


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "invalid choice: 'csh' (choose from 'bash', 'zsh', 'fish')" in capsys.readouterr().err
