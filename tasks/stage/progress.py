"""Artifacts on the Prefect page of a run. Outside a flow run, nothing is made.

They are only for people to look at: if Prefect does not answer, the loop continues without them.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from data.text import markdown
from tasks.stage.logs import run_logger

BAR = re.compile(r"(?P<label>[\w/ -]+):\s+(?P<percent>\d+)%\|")
UPDATE_SECONDS = 10.0  # between updates of the bar on the page
LOG_SECONDS, LOG_PERCENT = 30.0, 10  # between lines in the log: both must have passed since the last


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    from prefect.artifacts import create_table_artifact

    _publish(create_table_artifact, key=_key(key), table=rows, description=description)


def publish_markdown(key: str, text: str, description: str) -> None:
    from prefect.artifacts import create_markdown_artifact

    _publish(create_markdown_artifact, key=_key(key), markdown=text, description=description)


def publish_link(key: str, target: str, description: str) -> None:
    """Publish a link if `target` is an address, otherwise its text."""
    from prefect.artifacts import create_link_artifact

    if target.startswith("http"):
        _publish(create_link_artifact, key=_key(key), link=target, description=description)
    else:
        publish_markdown(key, markdown(target), description)


def flow_run_page(flow_run: str) -> str:
    """The address of a flow run's page; empty if the server is one that ends with its run, or has no pages."""
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

    return f"{PREFECT_UI_URL.value()}/runs/flow-run/{flow_run}" if PREFECT_API_URL.value() else ""


class ProgressLogger(logging.LoggerAdapter[Any]):
    """A logger that updates a progress bar on the run's page from the bar in a program's log.

    A terminal shows every line of the bar. Where lines are stored, in a file or by Prefect, there are only a few.
    """

    def __init__(self, logger: Any, key: str) -> None:
        super().__init__(logger)
        self.key, self._artifact, self._shown = _key(key), None, 0.0
        self._logged: float | None = None
        self._logged_percent = 0.0

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if (bar := BAR.search(str(msg))) is not None:
            self._show(bar["label"], float(bar["percent"]))
            if not self._is_due(float(bar["percent"])):
                if not sys.stderr.isatty():
                    return
                kwargs["extra"] = {"send_to_api": False}  # read by Prefect's handler
            if self.key.endswith(f"-{_key(bar['label'])}"):  # the line already begins with the stage's name
                msg = str(msg)[bar.end("label") + 1 :].lstrip()
        super().log(level, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs

    def _show(self, label: str, percent: float) -> None:
        if time.monotonic() - self._shown >= UPDATE_SECONDS or percent == 100:
            self._shown = time.monotonic()
            self._move(label, percent)

    def _is_due(self, percent: float) -> bool:
        """Whether a bar's line is kept: never its first, nor its last, which the stage's own last line follows."""
        now = time.monotonic()
        if self._logged is None or percent < self._logged_percent:  # a bar begins, perhaps another program's
            self._logged, self._logged_percent = now, 0.0
        late, far = now - self._logged >= LOG_SECONDS, percent - self._logged_percent >= LOG_PERCENT
        due = late and far and percent < 100
        if due:
            self._logged, self._logged_percent = now, percent
        return due

    def _move(self, label: str, percent: float) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if self._artifact is None:
            self._artifact = _publish(create_progress_artifact, progress=percent, key=self.key, description=label)
        else:
            _publish(update_progress_artifact, artifact_id=self._artifact, progress=percent, description=label)


def _publish(make: Callable[..., Any], **content: Any) -> Any:
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return None
    try:
        return make(**content)
    except Exception as error:
        run_logger().warning("Prefect refused %s: %s", content.get("key", "an artifact"), error)
        return None


def _key(name: str) -> str:
    """Return a valid Prefect key: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def progress_logger(run: Path, attempt: Path, program: str = "") -> ProgressLogger:
    """Return a logger that updates a bar of the stage on the run's page.

    Args:
        run: the run's directory.
        attempt: the stage's attempt directory, such as .generate.attempt in the folder of its iteration.
        program: the program's name, if the stage runs several.
    """
    stage = attempt.name.removeprefix(".").removesuffix(".attempt")
    names = [run.name, attempt.parent.name, stage, program]
    return ProgressLogger(run_logger(), "-".join(name for name in names if name))
