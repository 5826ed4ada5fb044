"""Artifacts on the Prefect page of a run. Outside a flow run there is no such page, and nothing is made."""

import re
from typing import Any


def publish_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    if _in_flow():
        from prefect.artifacts import create_table_artifact

        create_table_artifact(key=_key(key), table=rows, description=description)  # type: ignore[unused-coroutine]


def publish_markdown(key: str, text: str, description: str) -> None:
    if _in_flow():
        from prefect.artifacts import create_markdown_artifact

        create_markdown_artifact(key=_key(key), markdown=text, description=description)  # type: ignore[unused-coroutine]


def publish_link(key: str, target: str, description: str) -> None:
    """A link where `target` is an address, else its text."""
    if not _in_flow():
        return
    if target.startswith("http"):
        from prefect.artifacts import create_link_artifact

        create_link_artifact(key=_key(key), link=target, description=description)  # type: ignore[unused-coroutine]
    else:
        publish_markdown(key, target, description)


def _key(name: str) -> str:
    """Prefect allows lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _in_flow() -> bool:
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None
