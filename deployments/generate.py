"""`make deployments`: writes prefect.yaml from the flows and from the files in configs/ that have a `deployment`.

Every flow also has a deployment `own` with a short form, and `own-all-settings` with a field for every setting.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from data.errors import UsageError
from flows.commands.config_file import read_config
from flows.commands.exits import ended_plainly
from flows.commands.flow_table import Flow, all_flows, own_flows
from tasks.stage.environment import prepare

ROOT = Path(__file__).parents[1]
PREFECT_YAML, CONFIGS = ROOT / "prefect.yaml", ROOT / "configs"
HEADER = """\
# Made by `make deployments` from flows/ and configs/. `autodidact up` registers these; so does `prefect deploy --all`
# if there is a server and a pool. Runs work in the folder where this was called. Schedules are examples: switch them on
# in the UI.
"""
FORMS = "flows.commands.forms"
POOL = "autodidact"
WORK_POOL = {"name": POOL, "job_variables": {"working_dir": "{{ $PWD }}"}}
ONE_AT_A_TIME = {"limit": 1, "collision_strategy": "ENQUEUE"}
OWN_CRON, TIMEZONE = "0 22 * * 5", "Europe/Berlin"


class _Dumper(yaml.SafeDumper):
    """Gives the parts that all deployments share readable anchor names."""

    def ignore_aliases(self, data: Any) -> bool:
        return data is not WORK_POOL and data is not ONE_AT_A_TIME

    def generate_anchor(self, node: yaml.Node) -> str:
        assert isinstance(node, yaml.MappingNode)
        return "pool" if any(key.value == "job_variables" for key, _ in node.value) else "one_at_a_time"


def prefect_yaml(flows: Iterable[Flow]) -> str:
    """The deployments of these flows in Prefect's format."""
    content = {
        "name": "autodidact",
        "definitions": {"pool": WORK_POOL, "one_at_a_time": ONE_AT_A_TIME},
        "deployments": list(_deployments({flow.name: flow for flow in flows})),
    }
    return HEADER + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, default_flow_style=None)


def with_others(text: str) -> str:
    """Add the flows of other packages to a prefect.yaml, which may have been edited by hand.

    A flow that cannot be loaded is left out with a warning.

    Raises:
        UsageError: the text has no list of deployments.
    """
    content = yaml.safe_load(text)
    if not (isinstance(content, dict) and isinstance(content.get("deployments"), list)):
        raise UsageError("prefect.yaml has no list `deployments`.", what_next="Make it again: make deployments.")
    for name, flow in all_flows().items():
        if name in own_flows():
            continue
        try:
            content["deployments"] += _deployments({name: flow}, configs=())
        except UsageError as error:
            print(f"{name} is not deployed: {error}", file=sys.stderr)
    return yaml.safe_dump(content, sort_keys=False)


def _deployments(flows: dict[str, Flow], configs: Iterable[Path] | None = None) -> Iterator[dict[str, Any]]:
    for file in sorted(CONFIGS.glob("*.yaml")) if configs is None else configs:
        read = read_config(file)
        if (told := read.deployment) is not None and told.flow in flows:
            yield _deployment(flows[told.flow], told.name, told.description, told.tags, told.cron, read.settings)
    for flow in flows.values():
        name = f"own-{flow.name}"
        yield {
            **_deployment(flow, "own", f"{flow.help} Your own model and data; a short form.", ["own"], OWN_CRON, {}),
            "entrypoint": f"{FORMS}:{flow.function}",
            "parameters": {"run": name},
        }
        everything = f"{flow.help} Your own model and data; every setting has a field."
        yield _deployment(flow, "own-all-settings", everything, ["own"], None, _own(flow, name))


def _deployment(
    flow: Flow, name: str, description: str, tags: Iterable[str], cron: str | None, config: dict[str, Any]
) -> dict[str, Any]:
    schedules = {"schedules": [{"cron": cron, "timezone": TIMEZONE, "active": False}]} if cron else {}
    return {
        "name": name,
        "entrypoint": flow.entrypoint,
        "description": description,
        "tags": list(tags),
        "work_pool": WORK_POOL,
        "concurrency_limit": ONE_AT_A_TIME,
        **schedules,
        "parameters": {"config": config},
    }


def _own(flow: Flow, run: str) -> dict[str, Any]:
    """Settings of a user's own run: its name, and a file name for each required setting."""
    fields = flow.load().settings.model_fields.items()
    needed = [name for name, field in fields if field.is_required()]
    return {"run": run, **{name: f"{name}.jsonl" for name in needed}}


def main() -> int:
    """Write prefect.yaml. Flows import Prefect, which gets a temporary home folder for this."""
    with TemporaryDirectory() as runs:
        prepare(Path(runs))
        PREFECT_YAML.write_text(prefect_yaml(own_flows().values()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(ended_plainly(main))
