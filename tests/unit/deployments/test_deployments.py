"""The deployments of prefect.yaml: every parameter is valid, and the form says all that the settings' class says."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import construct_schedule
from prefect.utilities.callables import parameter_schema
from prefect.utilities.importtools import import_object
from pydantic import BaseModel

from data.errors import UsageError
from deployments.generate import FORMS, PREFECT_YAML, ROOT, prefect_yaml
from flows.commands.config_file import read_config
from flows.commands.flow_table import own_flows
from flows.commands.forms import resolve as resolve_form

DEPLOYMENTS = yaml.safe_load(PREFECT_YAML.read_text())["deployments"]
SHORT = [d for d in DEPLOYMENTS if d["entrypoint"].startswith(FORMS)]
FULL = [d for d in DEPLOYMENTS if d not in SHORT]


def name_of(deployment: dict[str, Any]) -> str:
    return f"{deployment['entrypoint'].split(':')[1]}/{deployment['name']}"


# Keywords of JSON Schema with which the form checks a number, a text or a list.
CONSTRAINTS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "enum", "minItems", "minLength")


def settings_class(deployment: dict[str, Any]) -> type[BaseModel]:
    flow = import_object(deployment["entrypoint"])
    found: type[BaseModel] = flow.fn.__annotations__["config"]
    return found


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_the_parameters_of_a_deployment_are_valid(deployment: dict[str, Any]):
    if deployment in FULL:
        settings_class(deployment).model_validate(deployment["parameters"]["config"])
    else:
        fields = inspect.signature(import_object(deployment["entrypoint"]).fn).parameters
        assert set(deployment["parameters"]) <= set(fields)
    assert deployment["description"]
    assert deployment["tags"]
    assert deployment["work_pool"]["job_variables"]["working_dir"]
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_they_are_those_that_flows_and_configurations_make():
    assert PREFECT_YAML.read_text() == prefect_yaml(own_flows().values()), "run make deployments"


def test_every_flow_has_a_deployment():
    assert {d["entrypoint"] for d in FULL} == {flow.entrypoint for flow in own_flows().values()}
    assert {d["entrypoint"].split(":")[1] for d in SHORT} == {flow.function for flow in own_flows().values()}


@pytest.mark.parametrize("deployment", SHORT, ids=name_of)
def test_a_short_form_submitted_untouched_is_refused_at_once(deployment: dict[str, Any]):
    flow = own_flows()[import_object(deployment["entrypoint"]).name]
    with pytest.raises(UsageError, match=r"neither a model nor a recipe was chosen\. Fill in Model"):
        resolve_form(flow, deployment["parameters"])


def test_the_demos_are_deployed_with_the_settings_of_their_files():
    made = {d["parameters"]["config"]["run"]: d["parameters"]["config"] for d in FULL if "demo" in d["tags"]}
    read = [
        read_config(ROOT / "configs" / f"{name}.yaml").settings
        for name in ("demo", "nightly", "spin-demo", "grpo-demo", "rlhf-demo", "self-rewarding-demo", "rlaif-demo")
    ]
    assert made == {settings["run"]: settings for settings in read}


def test_schedules_are_inactive_examples_in_a_time_zone():
    schedules = [s for d in DEPLOYMENTS for s in d.get("schedules", [])]
    assert schedules
    for schedule in schedules:
        assert schedule["active"] is False
        assert construct_schedule(cron=schedule["cron"], timezone=schedule["timezone"])


@pytest.mark.parametrize("deployment", FULL, ids=name_of)
def test_the_form_has_every_description_and_constraint(deployment: dict[str, Any]):
    form = parameter_schema(import_object(deployment["entrypoint"])).model_dump()
    shown = dict(walk(form["definitions"][settings_class(deployment).__name__], form))
    own = settings_class(deployment).model_json_schema()
    expected = dict(walk(own, own))
    assert shown.keys() == expected.keys()
    for path, node in expected.items():
        assert node.get("description"), f"{path} has no description"
        assert shown[path].get("description") == node["description"]
        assert kept(shown[path], form) == kept(node, own), path


def walk(model: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every setting of a model's schema, with those of the models in it, by its path."""
    for name, node in model["properties"].items():
        yield f"{prefix}{name}", node
        for inner in models(node, schema):
            yield from walk(inner, schema, f"{prefix}{name}.")


def models(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = [resolve(option, schema) for option in [node, *node.get("anyOf", [])]]
    return [option for option in found if "properties" in option]


def resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: dict[str, Any] = (schema.get("$defs") or schema["definitions"])[node["$ref"].rsplit("/", 1)[1]]
    return found


def kept(node: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
    """The constraints of a setting, and of each type that it may have."""
    options = [resolve(option, schema) for option in [node, *node.get("anyOf", []), node.get("items", {})]]
    return [{key: option[key] for key in CONSTRAINTS if key in option} for option in options]
