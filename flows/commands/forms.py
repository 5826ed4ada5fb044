"""Short forms for Prefect: a flow with a field for each main setting, a recipe, and one field for all other settings.

`flows.commands.forms:rest_em` is such a flow. What is not filled in is as in the recipe; overrides count most. Fields
are read as the command line reads flags, so both accept the same values and refuse with the same words.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from prefect import Flow as PrefectFlow
from pydantic import WithJsonSchema

from data.errors import AutodidactError, UsageError
from flows.commands.config_file import read_config
from flows.commands.flow_table import Flow, all_flows
from flows.commands.help_text import Setting, as_flag, settings_of
from flows.commands.settings import read_settings
from tasks.settings.leading import MACHINE, leading
from tasks.stage.contract import OnDrift
from tasks.stage.logs import run_logger
from tasks.stage.progress import publish_markdown
from tasks.tracking.champion import run_name

CONFIGS = Path(__file__).parents[2] / "configs"
DEFAULTS = "the method's defaults"
RECIPE, OVERRIDES, DRIFT = "recipe", "overrides", "on_drift"
UNCHANGED = "as in the recipe"  # the first choice of a drop-down; any other field is just left empty
# Main settings without a field of their own: a page of Prefect's would be too long to be read.
NOT_SHOWN = {*MACHINE, "limit"}
MOST_SETTINGS = 15
ALWAYS = ("launch.processes", "approve")


def __getattr__(name: str) -> Any:
    for flow in all_flows().values():
        if flow.function == name:
            return short_form(flow)
    raise AttributeError(f"there is no flow {name}")


def short_form(flow: Flow) -> PrefectFlow[..., dict[str, Any]]:
    """A Prefect flow of the same name, with one parameter for each field of the form."""
    loaded = flow.load()

    def filled_in(**fields: Any) -> dict[str, Any]:
        config = resolve(flow, fields)
        settings = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        run_logger().info("All settings of run %s are among the artifacts of this page", config.run)
        code = "".join(f"    {line}\n" for line in settings.splitlines())  # indented, nothing in it is Markdown
        publish_markdown(f"{config.directory.name}-settings", code, "All settings of this run")
        return dict(loaded.flow.fn(config, OnDrift(fields.get(DRIFT) or OnDrift.REFUSE)))

    filled_in.__signature__ = inspect.Signature(list(_parameters(flow)))  # type: ignore[attr-defined]
    filled_in.__name__ = flow.function
    return PrefectFlow(
        filled_in,
        name=flow.name,
        description=loaded.flow.description,
        flow_run_name=lambda: _run_name(flow),
        persist_result=False,
        validate_parameters=True,
    )


def resolve(flow: Flow, fields: dict[str, Any]) -> Any:
    """The settings of a filled-in form: overrides over fields over the recipe over the method's defaults.

    Raises:
        UsageError: a value that the command line would refuse, too; or neither a model nor a recipe that has one.
    """
    settings_class = flow.load().settings
    recipe = fields.get(RECIPE) or DEFAULTS
    flags = [] if recipe == DEFAULTS else ["--config", str(CONFIGS / f"{recipe}.yaml")]
    for setting in form_settings(settings_class):
        value = fields.get(as_parameter(setting.name))
        if value not in (None, "", UNCHANGED):
            flags.append(f"{as_flag(setting.name)}={_text(value)}")
    flags += overrides(fields.get(OVERRIDES) or "")
    if recipe == DEFAULTS and not any(flag.startswith("--model=") for flag in flags):
        raise UsageError(
            "neither a model nor a recipe was chosen.",
            what_next="Fill in Model: a folder, or a name on the hub. The recipe demo runs on a tiny embedded model.",
        )
    return read_settings(settings_class, flags, f"autodidact {flow.name}", flow=flow.name)[0]


def overrides(text: str) -> list[str]:
    """The flags in a text with a setting in each line: `train.warmup = 0.05`, or as on the command line.

    Raises:
        UsageError: a line without a value.
    """
    flags = []
    for line in filter(None, map(str.strip, text.splitlines())):
        found = re.fullmatch(r"(?:--)?([A-Za-z][\w.-]*)(?:\s*[=:]\s*|\s+)(.+)", line)
        if found is None:
            raise UsageError(
                f"{line!r} in the overrides is not a setting.", what_next="Write one a line: name = value."
            )
        flags.append(f"{as_flag(found[1])}={found[2]}")
    return flags


def form_settings(settings_class: Any) -> list[Setting]:
    """The settings that have a field of their own."""
    known = {setting.name: setting for setting in settings_of(settings_class)}
    main = [name for name in leading(settings_class) if name not in NOT_SHOWN][:MOST_SETTINGS]
    return [known[name] for name in (*main, *ALWAYS) if name in known]


def recipes(flow: Flow) -> list[str]:
    """The names of the files in configs/ that are for this flow."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if _is_for(path, flow))


def as_parameter(name: str) -> str:
    """The name of a setting's parameter: Python's, without dots."""
    return name.replace(".", "_")


def _parameters(flow: Flow) -> Iterator[inspect.Parameter]:
    about = "Where all settings come from that are not filled in below."
    yield _parameter(RECIPE, about, DEFAULTS, [DEFAULTS, *recipes(flow)])
    for setting in form_settings(flow.load().settings):
        if setting.choices:
            yield _parameter(as_parameter(setting.name), setting.about, UNCHANGED, [UNCHANGED, *setting.choices])
        else:
            yield _parameter(as_parameter(setting.name), setting.about)
    about = f"Any other setting, one a line: train.warmup = 0.05. `autodidact {flow.name} --help-all` lists all."
    yield _parameter(OVERRIDES, about)
    about = "What to do with finished stages that were made with other settings."
    yield _parameter(DRIFT, about, OnDrift.REFUSE.value, [choice.value for choice in OnDrift])


def _parameter(name: str, description: str, default: str = "", choices: Sequence[str] = ()) -> inspect.Parameter:
    """A parameter with a plain text field, or a drop-down. Prefect's page sends what is in it: text, never null."""
    schema = {"type": "string", "description": description} | ({"enum": list(choices)} if choices else {})
    annotation = Annotated[Any, WithJsonSchema(schema)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _run_name(flow: Flow) -> str:
    """The name of the flow run. A form that cannot be used fails in the flow itself, which says why."""
    from prefect.runtime import flow_run

    fields = dict(flow_run.parameters)
    try:
        config = resolve(flow, fields)
        return run_name(config.runs_dir, config.run)
    except AutodidactError:
        return str(fields.get("run") or flow.name)


def _is_for(path: Path, flow: Flow) -> bool:
    content = read_config(path)
    if content.deployment is not None:
        return content.deployment.flow == flow.name
    return path.stem.startswith(flow.name)
