"""The model card of a published policy, made from the run's own files.

The text is in `card.md.j2`. Names and sentences are untrusted and lose all Markdown meaning as they are filled in; only
tables and blocks of code, which are safe already, are `_Ready`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.calibration import RewardMetrics
from data.prepare.sources import hub_name
from data.text import encodable, fenced, markdown, markdown_table
from tasks.history.runs import History
from tasks.publishing.policy import REWARD, Published
from tasks.publishing.results import Compared, compared, inputs_read, public_name, rows_used, sources_of
from tasks.report.use import ANSWERING, LOADING
from tasks.tracking.reward_report import figures

LOADING_ADAPTER = (
    """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained({base!r}, revision={commit!r})
model, tokenizer = PeftModel.from_pretrained(base, {name!r}), AutoTokenizer.from_pretrained({name!r})
"""
    + ANSWERING
)
LOADING_REWARD = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

name = {name!r}
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(name), AutoTokenizer.from_pretrained(name)
messages = [{{"role": "user", "content": "…"}}, {{"role": "assistant", "content": "…"}}]
answered = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
print(model(**answered).logits.item())  # the reward: higher is better"""
# Settings of where a run is and how it is worked on; addresses may be those of a private network.
ELSEWHERE = {
    "algorithm",
    "decided_by",
    "run",
    "runs_dir",
    "registry",
    "approve",
    "keep",
    "engine",
    "launch",
    "endpoint",
}


class _Ready(str):
    """Markdown that is safe already."""


def model_card(published: Published, name: str, license_fields: Mapping[str, str], about: str = "") -> str:
    """Return the card.

    Args:
        name: of the model on the hub.
        license_fields: of the card's metadata.
        about: what the algorithm is, in a sentence; empty if nobody knows it here.

    Raises:
        CorruptStageError: a file with results was changed after it was written.
    """
    from huggingface_hub import ModelCard

    history, summary = published.history, published.summary
    reward = RewardMetrics.model_validate(summary[REWARD]) if published.is_reward_model else None
    found = [] if reward else compared(history, published.iteration)
    manifest = history.stages["best"].manifest
    told: dict[str, Any] = {
        "name": name.rpartition("/")[2],
        "findings": summary.get("findings", []),
        "what": _what(published),
        "usage": _Ready(fenced(_usage(published, name, reward is not None), "python")),
        "own_code": any(file.endswith(".py") for file in published.files),
        "system": history.config.get("system"),
        "table": _table([one.row() for one in found]),
        "sets": _about_sets(found),
        "reward": _table(_reward_rows(reward)),
        "method": about or f"The run used {published.algorithm}.",
        "base": published.base.said,
        "run": history.name,
        "iteration": published.iteration,
        "reason": summary.get("stop_reason"),
        "rows": _table(rows_used(history, published.iteration)),
        "inputs": _table(inputs_read(history)),
        "settings": _Ready(fenced(_settings(history.config), "yaml")),
        "code": _code(manifest.code),
        "packages": ", ".join(f"{package} {version}" for package, version in manifest.packages.items()),
        "digest": published.digest,
    }
    body = _environment().get_template("card.md.j2").render(told)
    data = _metadata(published, name, license_fields, found, reward)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML
        finalize=lambda value: markdown(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> _Ready:
    return _Ready(markdown_table(rows) if rows else "")


def _what(published: Published) -> str:
    """What the files are, in a sentence."""
    algorithm, base = published.algorithm, published.base.said
    if published.adapter_base:
        return (
            f"This is an adapter ({published.adapter_kind}) for {published.adapter_base.name}, trained by {algorithm}."
        )
    if published.iteration == 0:
        return f"This is the base of the run, {base}: no iteration of {algorithm} did better."
    return f"This model was made by {algorithm} from {base}."


def _reward_rows(reward: RewardMetrics | None) -> list[dict[str, str]]:
    return [{"metric": metric, "value": value} for metric, value in figures(reward).items()] if reward else []


def _code(code: Mapping[str, Any]) -> str:
    commit = f"at commit {code['commit']}" if code.get("commit") else "at a commit that is not known"
    return f"{commit}, with uncommitted changes" if code.get("dirty") else commit


def _usage(published: Published, name: str, reward: bool) -> str:
    if published.adapter_base:
        base = published.adapter_base
        return LOADING_ADAPTER.format(name=name, base=base.name, commit=base.commit)
    return LOADING_REWARD.format(name=name) if reward else LOADING.format(folder=name)


def _about_sets(found: Sequence[Compared]) -> str:
    if {one.set_name for one in found} == {"validation"}:
        return "No set was held out to the end, and the policy was chosen on this one: its value is optimistic."
    return "No iteration was chosen by these rows."


def _settings(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(_public(config), sort_keys=False, allow_unicode=True)


def _public(value: Any) -> Any:
    """A setting without the places and addresses of this machine."""
    if isinstance(value, Mapping):
        return {public_name(encodable(key)): _public(told) for key, told in value.items() if key not in ELSEWHERE}
    if isinstance(value, list):
        return [_public(told) for told in value]
    return public_name(encodable(value)) if isinstance(value, str) else value


def _metadata(
    published: Published,
    name: str,
    license_fields: Mapping[str, str],
    found: Sequence[Compared],
    reward: RewardMetrics | None,
) -> Any:
    """The card's metadata, with the results in the form that the hub reads."""
    from huggingface_hub import ModelCardData

    history, base = published.history, published.base.descends_from
    adapter = published.adapter_base is not None
    return ModelCardData(
        **license_fields,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-classification" if reward else "text-generation",
        tags=["autodidact", _slug(published.algorithm), *(["reward-model"] if reward else [])],
        base_model=base.name if base else None,
        base_model_relation=("adapter" if adapter else "finetune") if base else None,
        datasets=_on_hub(history) or None,
        model_name=name.rpartition("/")[2],
        eval_results=[_result(history, one) for one in found] or None,
    )


def _result(history: History, one: Compared) -> Any:
    from huggingface_hub import EvalResult

    source = "pairs" if one.measure.rows == "pairs" else sources_of(history, one.set_name)
    value = one.best.value
    return EvalResult(
        task_type="text-generation",
        dataset_type=_slug(source),
        dataset_name=f"{source}, {one.set_name}",
        dataset_split=one.set_name,
        metric_type=one.measure.name,
        metric_name=one.measure.label,
        metric_value=value.value,
        metric_args={"low": value.low, "high": value.high, "rows": one.best.rows},
    )


def _on_hub(history: History) -> list[str]:
    """The data sets on the hub that the run read."""
    found = (hub_name(Path(row["name"])) for row in inputs_read(history) if row["name"] and row["input"] != "model")
    return sorted({name for name, *_ in filter(None, found)})


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._/]+", "-", text.lower()).strip("-") or "unknown"
