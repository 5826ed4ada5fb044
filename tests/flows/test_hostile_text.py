"""Whatever a policy writes, a run ends well, and nothing of it acts on a terminal or a page."""

import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data.rows import Score
from data.storage import read_rows
from flows import rest_em
from flows.commands.cli import main
from tasks.loop import approval
from tasks.loop.loop import run_loop
from tasks.stage.contract import OnDrift
from tests.flows.conftest import make_config

HOSTILE = (
    "\x1b[2J\x1b]8;;https://example.org\x07link\x1b]8;;\x07 \x00 \x9b31m \u202ereversed\u202c \u2028 \ud800 \udcff\r"
    "## forged heading\n![picture](https://example.org/x.png) <img src=https://example.org/y.png> [/] [bold red] "
    "| cell | {{ 7 * 7 }} {% raw %} :smile: </script><script>alert(1)</script>\n"
)
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def finished(tmp_path: Path, stubs: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUB_SAYS", json.dumps(HOSTILE))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    reward = {"name": "tests.flows.rewards:talkative"}
    config = make_config(tmp_path, iterations=1, run="hostile", reward=reward, system="<b>\x07[/]</b>")
    pages: list[str] = []
    monkeypatch.setattr(approval, "_suspend", lambda iteration, page: pages.append(page) or approval.Decision())
    monkeypatch.setattr("tasks.loop.loop.require_deployment", lambda: None)
    run_loop("ReST-EM", rest_em.loop, config.model_copy(update={"approve": True}), OnDrift.REFUSE)
    (tmp_path / "page.md").write_text("\n".join(pages))
    return config.directory


def test_a_run_ends_well_and_nothing_acts_on_a_surface(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explanations = [score.explanation for score in read_rows(Score, finished / "iter-1" / "score" / "scores")]
    assert all(len(text) < 60_100 and "\\ud800" in text for text in explanations), "they are cut, and can be stored"

    page = (tmp_path / "page.md").read_text()
    assert not ACTS.search(page) and r"\!\[picture\]\(https\:\/\/example\.org" in page
    assert [line[:2] for line in page.splitlines() if "forged" in line] == ["| "] * approval.ANSWERS_SHOWN

    report = (finished / "report.html").read_text()
    assert not ACTS.search(report) and "reversed" in report
    assert "<img src=https" not in report and "<script>alert" not in report

    runs = ["--runs-dir", str(finished.parent)]
    for command in (["trace", "hostile"], ["runs"], ["verify", "hostile"]):
        assert main([*command, *runs]) == 0
    key = next(line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  iter-1/"))
    assert main(["trace", "hostile", key, *runs]) == 0
    shown = capsys.readouterr().out
    assert not ACTS.search(shown) and "\\x1b[2J" in shown and "| ## forged heading" not in shown

    client = MlflowClient(f"sqlite:///{finished.parent}/mlflow.db")
    parent = json.loads((finished / "mlflow.json").read_text())["parent"]
    assert client.get_run(parent).info.status == "FINISHED"
