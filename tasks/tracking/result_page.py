"""The result of a run on its page in Prefect: findings, the curve, tables, and what to do with the checkpoint."""

import base64
from pathlib import Path

from data.text import markdown, markdown_table
from tasks.report.content import Report
from tasks.report.findings import findings
from tasks.report.use import commands, loading_code
from tasks.tracking.numbers import final_table, iteration_table, measure_table


def result_page(report: Report, curve: Path, html: Path, champion: str) -> str:
    """Everything in Markdown. Links are those that a browser can follow from another machine."""
    found = [finding.sentence for finding in findings(report)]
    picture = base64.b64encode(curve.read_bytes()).decode()
    parts = [
        *map(markdown, found),
        f"![The learning curve](data:image/png;base64,{picture})",
        *_tables(report),
        markdown(f"The loop ended because {report.stop_reason}."),
        markdown(champion),
        f"The checkpoint is in {_code(report.checkpoint or '')}. With transformers:",
        _indented(loading_code(report.checkpoint or "")),
        *_use(report),
        _history(report.mlflow),
        f"The report, with all figures, is the file {_code(str(html.absolute()))}.",
    ]
    return "\n\n".join(parts)


def _use(report: Report) -> list[str]:
    if not report.checkpoint:
        return []
    told = commands(Path(report.checkpoint).parents[1]).values()
    return ["Or with a command, on the machine with the runs:", _indented("\n".join(told))]


def _tables(report: Report) -> list[str]:
    finals = [{"set": name, **row} for name, row in final_table(report).items()] or measure_table(report)
    rows = [
        ("Validation, by iteration", iteration_table(report.iterations, report.measure)),
        ("Held out to the end", finals),
    ]
    return [f"**{title}**\n\n{markdown_table(table)}" for title, table in rows if table]


def _history(where: str) -> str:
    if where.startswith("http"):
        return f"[The history in MLflow](<{where}>) has every iteration, with the report among the files of the run."
    return f"The history in MLflow: {markdown(where)}"


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else markdown(text)


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())
