"""What of a run is published: the best policy's files, merged or as an adapter, once they are known to be whole."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.errors import UsageError
from tasks.history.runs import History, open_history
from tasks.history.state import State, run_state
from tasks.policies.adapter import read_base, weights_digest
from tasks.policies.model_folder import CODE, INDEX
from tasks.publishing.base import Base, HubModel, base_of
from tasks.stage.contract import Finished
from tasks.stage.freed import FreedError, read_freed, stage_that_freed
from tasks.stage.run import SUMMARY

REWARD = "held_out"  # in the summary: metrics of a reward model
POLICY, ADAPTER = "policy/", "adapter/"
PEFT_KINDS = {"LORA": "LoRA", "ADALORA": "AdaLoRA", "IA3": "IA³", "PROMPT_TUNING": "prompt tuning"}
PEFT_KINDS |= {"P_TUNING": "P-tuning", "PREFIX_TUNING": "prefix tuning"}
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What only a complete model has. The rest, tokenizer and chat template, goes with an adapter as well.
OF_A_MODEL = ("*.safetensors", INDEX, "config.json", "generation_config.json", CODE)


@dataclass(frozen=True)
class Published:
    """What is published of a run.

    Attributes:
        iteration: the best one; 0 is the base.
        digest: of the policy in the run, as the model registry knows it.
        files: the file that each name in the published folder stands for, or its content.
        adapter_base: the model on the hub that an adapter belongs to; None for a complete model.
        adapter_kind: what kind of adapter it is, as a person would write it.
    """

    history: History
    summary: dict[str, Any]
    iteration: int
    digest: str
    base: Base
    files: dict[str, Path | bytes]
    adapter_base: HubModel | None = None
    adapter_kind: str = ""

    @property
    def is_reward_model(self) -> bool:
        return REWARD in self.summary

    @property
    def algorithm(self) -> str:
        return self.history.algorithm or "an unknown algorithm"


def open_published(runs: Path, name: str, adapter: bool) -> Published:
    """Return what is published of the named run, after every byte of it was compared with its digest.

    Args:
        adapter: the adapter alone, instead of the policy that it is merged into.

    Raises:
        QueryError: there is no such run, or part of it cannot be read.
        UsageError: the run is not finished, or has no adapter for a model on the hub.
        FreedError: the policy's weights were freed.
        CorruptStageError: a file was changed after it was written.
    """
    history = open_history(runs, name)
    found = run_state(history.directory)
    if found.state is not State.FINISHED or "best" not in history.stages:
        about = f"{found.state}: {found.detail}" if found.detail else str(found.state)
        raise UsageError(
            f"The run {name} has no policy to publish yet.",
            f"It is {about}.",
            "Let it finish: the command that started it continues it.",
        )
    best = history.stages["best"]
    if stage := stage_that_freed(best.path / "policy"):
        raise FreedError(
            f"The weights of the best policy of {name} are gone: {read_freed(stage)}.",
            what_next="Give the command that started the run again with --on-drift rebuild, which makes them again.",
        )
    best.verify()
    summary = json.loads((history.directory / SUMMARY).read_text())
    iteration, digest = int(best.manifest.config["iteration"]), best.artifact("policy").require()
    published = Published(history, summary, iteration, digest, base_of(history), _files(best, POLICY))
    if adapter:
        return _adapter(published)
    if any(name.startswith(ADAPTER) for name in published.files):
        raise UsageError(
            f"The policy of {name} has an adapter beside its weights, which those who load the policy would not see.",
            what_next="If peft has its kind and the base is on the hub, publish the adapter alone, with --adapter. To "
            f"talk with it here: autodidact chat {name}.",
        )
    return published


def _files(stage: Finished, folder: str) -> dict[str, Path | bytes]:
    return {name.removeprefix(folder): stage.path / name for name in stage.manifest.outputs if name.startswith(folder)}


def _adapter(published: Published) -> Published:
    """Return the adapter alone, with the tokenizer and with its base named."""
    history, number = published.history, published.iteration
    if published.is_reward_model:
        raise UsageError(
            f"The run {history.name} made a reward model, whose adapter is not complete without its output layer.",
            what_next="Leave out --adapter to publish the complete reward model.",
        )
    train = history.stages.get(f"iter-{number}/train")
    files = _files(train, ADAPTER) if train else {}
    if train is None or ADAPTER_WEIGHTS not in files:
        raise UsageError(
            f"The best policy of {history.name} has no adapter.",
            "No iteration did better than the base." if number == 0 else f"Iteration {number} trained all weights.",
            "Leave out --adapter to publish the complete policy.",
        )
    train.verify()
    base = _base_on_hub(published, train)
    told = json.loads((train.path / ADAPTER / ADAPTER_CONFIG).read_text())
    if "peft_type" not in told:
        raise UsageError(
            f"The adapter of {history.name} is of the kind {told['kind']}, which peft cannot load.",
            what_next="A kind that is merged can be published as a complete policy, without --adapter.",
        )
    told |= {"base_model_name_or_path": base.name, "revision": base.commit}
    shared = {name: file for name, file in published.files.items() if not any(Path(name).match(p) for p in OF_A_MODEL)}
    files = shared | files | {ADAPTER_CONFIG: json.dumps(told, indent=2).encode() + b"\n"}
    return replace(published, files=files, adapter_base=base, adapter_kind=PEFT_KINDS[told["peft_type"]])


def _base_on_hub(published: Published, train: Finished) -> HubModel:
    """The model on the hub that an adapter was trained on."""
    history = published.history
    inputs = train.manifest.inputs  # an adapter that goes on over iterations is the reference's
    start = history.origin(inputs.get("reference", inputs.get("start", "")), published.iteration)
    of_base = start is not None and start.stage == "base"
    if start is not None and (trained_on := read_base(train.path / ADAPTER)):  # a policy may have its base's weights
        base = history.stages["base"].path / "policy"
        of_base = of_base or (any(base.glob("*.safetensors")) and trained_on.weights == weights_digest(base))
    if of_base and published.base.model is not None:
        return published.base.model
    what = published.base.said if start is None or start.stage == "base" else f"the policy of {start.stage}"
    raise UsageError(
        f"The adapter of {history.name} cannot be published alone.",
        f"It belongs to {what}, which is on no hub, so nobody could load it.",
        "Leave out --adapter to publish the complete policy.",
    )
