"""The report says what its figures say, trusts no model text, and loads nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pydantic import ValidationError

from data.metrics import Interval, SetMetrics
from data.prepare.overlap import Repeated
from tasks.report.content import Answer, DataReport, IterationReport, Report, SideBySide
from tasks.report.findings import findings
from tasks.report.page import write_report

HOSTILE = "</div><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>"
LOADING = {"src", "srcset", "poster", "data", "background", "action"}


def metrics(value: float, difference: Interval | None = None, sampled: bool = True) -> SetMetrics:
    fields = {
        "problems": 500,
        "greedy": Interval(value=value, low=value - 0.04, high=value + 0.04),
        "pass_at": {k: Interval(value=value, low=value, high=value) for k in (1, 8)} if sampled else {},
        "majority_at": {8: Interval(value=value, low=value, high=value)} if sampled else {},
        "samples_per_problem": 8,
        "temperature": 0.7,
        "top_p": 0.95,
        "verdicts": {"wrong": 200, "correct": 300},
        "truncated": 0.05,
        "mean_tokens": 120.5,
        "against": {} if difference is None else {"base": difference, "previous": difference},
    }
    return SetMetrics.model_validate(fields)


def difference(value: float) -> Interval:
    return Interval(value=value, low=value - 0.034, high=value + 0.034)


def iteration(number: int, **fields: object) -> IterationReport:
    trained = {
        "selection": {"samples": 100, "kept": 40, "wrong": 50, "over_limit": 7},
        "verdicts": {"correct": 50, "wrong": 50},
        "coverage_gained": 12,
        "coverage_lost": 3,
        "seconds": {"generate": 100.0, "train": 3700.0},
    }
    values = {"iteration": number, "validation": metrics(0.5 + 0.01 * number)} | (trained if number else {}) | fields
    return IterationReport.model_validate(values)


def report(**fields: object) -> Report:
    answer = Answer(text="four", verdict="correct")
    values = {
        "algorithm": "ReST-EM",
        "run": "demo",
        "status": "finished",
        "best_iteration": 2,
        "stop_reason": "last iteration",
        "iterations": [iteration(0), iteration(1), iteration(2)],
        "final": {"test": (metrics(0.558), metrics(0.712, difference(0.154)))},
        "examples": [SideBySide(prompt="2 + 2?", reference="4", base=answer, final=answer)],
        "config": "seed: 17",
        "command": "autodidact rest-em --run demo",
        "versions": {"torch": "2.11"},
        "mlflow": "http://127.0.0.1:5000/#/runs/1",
    }
    return Report.model_validate(values | fields)


def page(folder: Path, content: Report) -> str:
    write_report(content, folder / "report.html", folder / "curve.png")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("best", "change", "verb", "numbers", "caution"),
    [
        (0.712, 0.154, "raised", "from 55.8 % to 71.2 %: +15.4 points, 95 % interval [12.0, 18.8]", ""),
        (0.478, -0.08, "lowered", "from 55.8 % to 47.8 %: −8.0 points, 95 % interval [−11.4, −4.6]", ""),
        (
            0.57,
            0.012,
            "took",
            "from 55.8 % to 57.0 %: +1.2 points, 95 % interval [−2.2, 4.6]",
            " The interval includes ",
        ),
    ],
)
def test_headline_says_better_worse_or_indistinguishable(
    best: float, change: float, verb: str, numbers: str, caution: str
) -> None:
    final = {"test": (metrics(0.558), metrics(best, difference(change)))}
    sentence = findings(report(final=final))[0].sentence
    assert sentence.startswith(f"ReST-EM {verb} test accuracy {numbers}, n = 500, greedy.{caution}")
    assert ("not distinguishable from zero" in sentence) == bool(caution)


def test_headline_without_improvement_is_the_base() -> None:
    sentence = findings(report(best_iteration=0))[0].sentence
    assert "remains the result" in sentence
    assert "raised" not in sentence


def test_headline_without_final_sets_warns_that_validation_chose_the_iteration() -> None:
    best = iteration(1, validation=metrics(0.6, difference(0.1)))
    (found,) = findings(report(final={}, best_iteration=1, iterations=[iteration(0), best]))
    assert found.sentence.startswith("ReST-EM raised validation accuracy")
    assert "the best iteration was chosen on this one" in found.sentence


def test_model_text_is_escaped(tmp_path: Path) -> None:
    hostile = Answer(text=HOSTILE, verdict=HOSTILE)
    example = SideBySide(prompt=HOSTILE, reference=HOSTILE, base=hostile, final=hostile)
    stage = iteration(1, seconds={HOSTILE: 60.0}, selection={"samples": 2, HOSTILE: 2}, verdicts={HOSTILE: 2})
    text = page(
        tmp_path,
        report(
            examples=[example],
            iterations=[iteration(0), stage],
            run=HOSTILE,
            data=DataReport(
                sources={HOSTILE: {HOSTILE: 2}},
                dropped={HOSTILE: 1},
                files={HOSTILE: 3},
                skipped={HOSTILE: HOSTILE},
                noticed={HOSTILE: 1},
                repeated=[Repeated(HOSTILE, 0.5, HOSTILE, HOSTILE, HOSTILE)],
            ),
            status=HOSTILE,
            config=HOSTILE,
            mlflow="javascript:alert(1)",
            final={HOSTILE: (metrics(0.5), metrics(0.6, difference(0.1)))},
        ),
    )
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert "<img" not in text
    assert 'href="javascript' not in text


def test_page_loads_nothing(tmp_path: Path) -> None:
    loads: list[tuple[str, str | None]] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            for name, value in attrs:
                inside = value is not None and value.startswith(("#", "data:"))
                if name in LOADING or (name in ("href", "xlink:href") and tag != "a" and not inside):
                    loads.append((tag, value))

    text = page(tmp_path, report())
    Collector().feed(text)
    assert loads == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_iteration_is_shown_and_the_best_is_marked(tmp_path: Path) -> None:
    text = page(tmp_path, report(iterations=[iteration(number) for number in range(4)]))
    rows = re.findall(r'<th scope="row">(\w+)( <span class="tag best">)?', text)
    assert {name for name, _ in rows} >= {"base", "1", "2", "3"}
    assert {name for name, mark in rows if mark} == {"2"}


def test_samples_that_no_reason_accounts_for_are_shown(tmp_path: Path) -> None:
    text = page(tmp_path, report())
    assert re.search(r"<th scope=\"col\">unaccounted for</th>", text)
    assert '<td>3 <span class="range">(3.0 %)</span></td>' in text


def test_ids_are_unique_across_the_figures(tmp_path: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page(tmp_path, report()))
    assert len(ids) == len(set(ids))


def test_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(report(), tmp_path / f"{name}.html", tmp_path / f"{name}.png")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "fields",
    [
        {"iterations": [], "final": {}, "examples": [], "best_iteration": 0},
        {"iterations": [iteration(0, validation=metrics(0.0, sampled=False))], "best_iteration": 0},
        {"iterations": [iteration(0), iteration(1, selection={"samples": 0, "kept": 0}, verdicts={}, seconds={})]},
        {"run": "$x$ " + "y" * 300, "final": {"test": (metrics(0.5), metrics(0.5))}},
        {"extra_curves": {"margin": [None, 0.2, difference(0.3)]}},
        {"examples": [{"prompt": "مرحبا", "reference": "四", "base": {"text": "", "verdict": "odd"},
                       "final": {"text": "\x00\ud83d\u202e" + "x" * 100_000, "verdict": "timeout"}}]},
    ],
    ids=["nothing", "base only", "nothing selected", "long name", "extra curves", "odd text"],
)  # fmt: skip
def test_awkward_reports_are_written(tmp_path: Path, fields: dict[str, object]) -> None:
    assert page(tmp_path, report(**fields)).endswith("</html>")


def test_extra_curve_of_another_length_is_refused() -> None:
    with pytest.raises(ValidationError, match="'margin' has 1 values for 3 iterations"):
        report(extra_curves={"margin": [0.1]})
