"""Human approval after each iteration: the flow is suspended, holds no GPU, and continues when a form is submitted."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from data.errors import AutodidactError
from data.files import write_json
from data.text import markdown, storable

DECISIONS = "decisions.json"
ANSWERS_SHOWN = 5
LONGEST_CELL = 2000  # characters of a prompt or an answer


class ApprovalError(AutodidactError):
    """Approval is required but cannot be requested, or the submitted form is invalid."""


class Decision(BaseModel):
    """A reviewer's decision after an iteration."""

    decision: Literal["go on", "stop", "use iteration"] = Field(
        "go on", description="stop: end with the best iteration so far; use iteration: end with the one named below."
    )
    iteration: int | None = Field(None, ge=0, description="Which iteration to use; 0 is the base.")


def require_deployment() -> None:
    """Check that this flow run can be suspended.

    Raises:
        ApprovalError: it was not started from a deployment.
    """
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        raise ApprovalError(
            "approve is on, but only a run started from a deployment can wait for approval.",
            what_next="Start it in the Prefect UI (autodidact up), or set approve to false.",
        )


def ask(directory: Path, iteration: int, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[str]]) -> Decision:
    """Suspend the flow until a reviewer decides. A decision made before is returned at once.

    Args:
        rows: the table of iterations.
        answers: prompt, reference, answer, verdict of some validation problems, if they are verified.

    Raises:
        ApprovalError: the form names an iteration that does not exist.
        prefect.exceptions.Pause: the flow is suspended now. It will run again from its start and reuse every stage.
    """
    file = directory / DECISIONS
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if str(iteration) in known:
        return Decision.model_validate(known[str(iteration)])
    decision = _suspend(iteration, _page(directory.name, iteration, rows, answers))
    if decision.decision == "use iteration" and decision.iteration not in range(iteration + 1):
        raise ApprovalError(
            f"The form asks for iteration {decision.iteration}, but there are only 0 to {iteration}.",
            what_next="Run the deployment again: it shows the form again.",
        )
    write_json(file, known | {str(iteration): decision.model_dump()})
    return decision


def decided_best(directory: Path) -> int | None:
    """Return the iteration that a reviewer chose to use, if any."""
    file = directory / DECISIONS
    known = json.loads(file.read_text()) if file.exists() else {}
    chosen = [d["iteration"] for d in known.values() if d["decision"] == "use iteration"]
    return chosen[-1] if chosen else None


def _suspend(iteration: int, page: str) -> Decision:
    from prefect.flow_runs import suspend_flow_run
    from prefect.input import RunInput

    class Form(Decision, RunInput):
        """After this iteration."""

    form = suspend_flow_run(wait_for_input=Form.with_initial_data(description=page), key=f"iteration-{iteration}")
    return Decision.model_validate(form.model_dump(include=set(Decision.model_fields)))


def _page(run: str, iteration: int, rows: Sequence[dict[str, Any]], answers: Sequence[Sequence[str]]) -> str:
    """Return the form's Markdown: the iterations so far, and some answers of the latest."""
    names = list(rows[-1])
    table = _markdown_table(names, ([row.get(name, "") for name in names] for row in rows))
    page = f"## {markdown(run)}: iteration {iteration} is done\n\n{table}"
    if not answers:
        return page
    shown = _markdown_table(("prompt", "reference", "answer", "verdict"), answers[:ANSWERS_SHOWN])
    return f"{page}\n\n### Some of its answers to validation problems\n\n{shown}"


def _markdown_table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [["---"] * len(names), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [[markdown(name) for name in names], *lines])


def _cell(content: Any) -> str:
    return "" if content is None else markdown(storable(str(content), LONGEST_CELL))
