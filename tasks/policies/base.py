"""The stage `base`: the policy that a run starts from, the embedded tiny model or a user's own."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from filelock import FileLock
from pydantic import Field

from data import arithmetic
from data.chat_template import choose_template, template_file, template_text, with_options
from data.files import file_sha256
from data.rows import Example, Problem
from data.storage import write_rows
from data.wording import counted
from models import tiny
from models.config import (
    CodeSetting,
    Dtype,
    LaunchConfig,
    ModelName,
    RevisionSetting,
    SupervisedConfig,
    TemplateOptions,
    TrainProgram,
)
from models.config_base import Config
from models.launch import SUPERVISED
from models.loading import load_tokenizer
from tasks.policies.adapter import merge
from tasks.policies.model_folder import TEMPLATE, code_identity, folder_digest, hub_commit, model_files, resolve_model
from tasks.policies.shipped import find_base
from tasks.policies.train import TRAIN_VERSION
from tasks.stage.contract import Artifact, Estimate, Finished, Outcome, Stage, run_stage
from tasks.stage.environment import cache_folder
from tasks.stage.launch import launch_program
from tasks.stage.process import await_children
from tasks.stage.run import Result, Run

VERSION = 1


class BootstrapTrainConfig(SupervisedConfig):
    """Training of the embedded tiny model from random weights."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 3e-3
    epochs: Annotated[float, Field(gt=0, description="Passes over the demonstrations.")] = 6.0
    batch_size: Annotated[int, Field(ge=1, description="Examples per optimizer step.")] = 32
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of the steps with learning-rate warmup.")] = 0.05
    dtype: Annotated[Dtype, Field(description="bfloat16: mixed precision; float32: full precision.")] = "float32"
    adapter: Annotated[None, Field(description="Always none: an adapter needs trained weights.")] = None


class BootstrapConfig(Config):
    """Training of the embedded tiny model on its demonstrations. Used only if no model is given."""

    train: Annotated[BootstrapTrainConfig, Field(description="Hyperparameters.")] = BootstrapTrainConfig()
    demonstrations: Annotated[int, Field(ge=1, le=3000, description="Worked examples to learn from.")] = 3000
    bare: Annotated[
        float, Field(ge=0, lt=1, description="Share of them that show only the result, without the steps to it.")
    ] = 0.0
    bare_people: Annotated[
        int | None,
        Field(ge=1, description=f"How many of the {len(arithmetic.PEOPLE)} people have bare examples. Default: all."),
    ] = None


class PolicySource(Config):
    """The model that the loop starts from."""

    model: Annotated[ModelName | None, Field(description="Path or hub id. Default: the embedded tiny model.")] = None
    adapter: Annotated[Path | None, Field(description="Trained adapter to merge into the model first.")] = None
    template: Annotated[
        Path | None,
        Field(description="Chat template that replaces the model's: a name, such as chatml, or a Jinja file."),
    ] = None
    template_options: TemplateOptions
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None
    bootstrap: Annotated[BootstrapConfig, Field(description="Training of the embedded tiny model.")] = BootstrapConfig()


def base_policy(run: Run, source: PolicySource) -> Result:
    """Make the policy before the first iteration, with its weights and tokenizer in `policy/`."""
    return _own_model(run, source) if source.model else _embedded_model(run, source)


def _own_model(run: Run, source: PolicySource) -> Result:
    folder = resolve_model(str(source.model), source, offline=run.planning)
    inputs = {"model": Artifact(folder or Path(str(source.model)), folder_digest(folder) if folder else None)}
    if source.template:
        template = template_file(source.template)
        inputs["template"] = Artifact(template, file_sha256(template))
    if source.adapter:
        inputs["adapter"] = Artifact(source.adapter, folder_digest(source.adapter) if source.adapter.is_dir() else None)
    options = {"template_options": source.template_options} if source.template_options else {}
    stage = Stage("base", VERSION, code_identity(folder, source.model_code) | options, inputs)

    def work(attempt: Path) -> Outcome:
        assert folder is not None
        policy = attempt / "policy"
        policy.mkdir(exist_ok=True)
        command: list[str] = []
        if source.adapter:
            command = merge(folder, source.adapter, policy, run.child_lock, code=source.model_code)
        else:
            _link_files(folder, policy, code=source.model_code == "allow")
        if source.template or source.template_options:
            tokenizer = load_tokenizer(folder, source.model_code)
            choose_template(tokenizer, source.template, source.template_options)
            (policy / TEMPLATE).unlink(missing_ok=True)
            (policy / TEMPLATE).write_text(tokenizer.get_chat_template(), encoding="utf-8")
        said = f"{source.model}" + (f" with the adapter {source.adapter} merged" if source.adapter else "")
        return Outcome(command=tuple(command), origin=hub_commit(str(source.model), folder), said=said)

    return run.execute(stage, work)


def _link_files(model: Path, policy: Path, code: bool) -> None:
    for file in model_files(model, code):
        link = policy / file.relative_to(model)
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())


def _embedded_model(run: Run, source: PolicySource) -> Result:
    bootstrap = source.bootstrap
    stage = bootstrap_stage(source, bootstrap, run.seed)
    shipped = find_base(stage.fingerprint())
    if shipped:
        stage = replace(stage, command="", estimate=Estimate(disk_bytes=4_000_000))

    def work(attempt: Path) -> Outcome:
        if shipped:
            shipped.copy_to(attempt / "policy")
            said = f"{shipped.name}, which is included in the package"
            return Outcome(rows_in=bootstrap.demonstrations, origin={"base": shipped.name}, said=said)
        trained = train_embedded(run, source, bootstrap, run.seed)
        trained.verify()
        for name in ("policy", *trained.manifest.logs):
            made = trained.path / name
            if made.is_dir():
                shutil.copytree(made, attempt / name, dirs_exist_ok=True)
            else:
                shutil.copy2(made, attempt / name)
        said = f"the embedded model, trained on {counted(bootstrap.demonstrations, 'worked example')}"
        return Outcome(rows_in=bootstrap.demonstrations, command=tuple(trained.manifest.command), said=said)

    return run.execute(stage, work)


def bootstrap_stage(source: PolicySource, bootstrap: BootstrapConfig, seed: int) -> Stage:
    """Return the stage that makes a run's base from the embedded model."""
    learning = bootstrap.model_dump(mode="json")
    if bootstrap.bare_people is None:  # keeps the fingerprint from before this setting existed
        del learning["bare_people"]
    semantic = {
        "tiny": tiny.VERSION,
        "generator": arithmetic.VERSION,
        "bootstrap": learning,
        "template": _template_of(source),
    }
    if bootstrap.train.dtype == "bfloat16":  # in float32, trainer versions 2 and 3 changed nothing here
        semantic["trainer"] = TRAIN_VERSION
    estimate = Estimate(disk_bytes=60_000_000)
    return Stage("base", VERSION, semantic, {}, seed, command=f"python -m {SUPERVISED}", estimate=estimate)


def train_embedded(run: Run, source: PolicySource, bootstrap: BootstrapConfig, seed: int) -> Finished:
    """Train the embedded model once per cache folder; its weights and tokenizer are in `policy/`."""
    cache = cache_folder() / "bootstrap"
    cache.mkdir(parents=True, exist_ok=True)
    stage = bootstrap_stage(source, bootstrap, seed)
    name = stage.fingerprint()[:16]
    lock = cache / f".{name}.child.lock"
    with FileLock(cache / f".{name}.lock"):
        await_children(lock)
        return run_stage(
            cache,
            replace(stage, name=name, resumable=True),
            lambda folder: _bootstrap(folder, lock, source, bootstrap, seed),
            run.on_drift,
        )


def _bootstrap(folder: Path, lock: Path, source: PolicySource, bootstrap: BootstrapConfig, seed: int) -> Outcome:
    untrained, examples = write_bootstrap_inputs(folder, source, bootstrap, seed)
    program = TrainProgram(
        policy=untrained,
        examples=[examples],
        output=folder / "policy",
        seed=seed,
        train=bootstrap.train,
        launch=LaunchConfig(micro_batch_size=bootstrap.train.batch_size),
    )
    command = launch_program(SUPERVISED, program, folder, lock)
    return Outcome(rows_in=bootstrap.demonstrations, command=tuple(command))


def write_bootstrap_inputs(
    folder: Path, source: PolicySource, bootstrap: BootstrapConfig, seed: int
) -> tuple[Path, Path]:
    """Write the bootstrap's inputs, the untrained model and the examples, as hidden files of `folder`."""
    untrained, examples = folder / ".untrained", folder / ".examples.parquet"
    write_rows(Example, examples, bootstrap_examples(bootstrap, seed))
    worked = demonstrations(seed, bootstrap.demonstrations)
    tiny.write_untrained(untrained, (text for p in worked for text in (p.messages[0]["content"], p.response or "")))
    if template := _template_of(source):
        (untrained / TEMPLATE).write_text(template, encoding="utf-8")
    return untrained, examples


def bootstrap_examples(bootstrap: BootstrapConfig, seed: int) -> Iterator[Example]:
    """Yield the bootstrap's examples: the demonstrations, with a share of those about some people bare."""
    rng, people = random.Random(seed), arithmetic.PEOPLE[: bootstrap.bare_people]
    for problem in demonstrations(seed, bootstrap.demonstrations):
        bare = rng.random() < bootstrap.bare and arithmetic.person(problem) in people
        shown = arithmetic.bare(problem) if bare else problem
        yield Example(shown.id, 0, shown.messages, shown.response or "", None, "")


def _template_of(source: PolicySource) -> str | None:
    """Return the chat template for the embedded model; None if it keeps its own."""
    if not (source.template or source.template_options):
        return None
    text = template_text(source.template) if source.template else tiny.CHAT_TEMPLATE
    return with_options(text, source.template_options)


def demonstrations(seed: int, count: int) -> Iterator[Problem]:
    """Yield the first `count` worked examples of the embedded problems."""
    found = (p for p in arithmetic.embedded_problems(seed) if p.split == "demonstration")
    for _, problem in zip(range(count), found, strict=False):
        yield problem
