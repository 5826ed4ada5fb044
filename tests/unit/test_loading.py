"""Python code in a model's folder runs where it is allowed and nowhere else; and what is fetched from the hub."""

import io
import json
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer, dynamic_module_utils

from flows.rest_em import RestEM, loop
from flows.reward_model import RewardModel
from models.config import (
    EngineConfig,
    JudgeConfig,
    LaunchConfig,
    ModelCode,
    PreferenceConfig,
    RewardModelConfig,
    RewardTrainConfig,
    SamplingConfig,
    ScoringConfig,
    SupervisedConfig,
)
from models.engine import Served, vllm
from models.loading import ModelError, check_code, load_config, load_tokenizer, load_weights, own_code
from models.training.common import load_policy
from tasks.datasets.inspect import InspectConfig
from tasks.datasets.prompt_length import model_tokenizer
from tasks.loop import preflight
from tasks.loop.preflight import check
from tasks.policies import adapter, model_folder, train
from tasks.policies.base import base_policy
from tasks.policies.model_folder import ModelChoice, folder_digest, resolve_model
from tasks.policies.reference import PairsMeasured, measure_reference
from tasks.rollouts import generate as sample
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.trained_reward import TrainedReward, measure_reward_model
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.launch import Training
from tasks.stage.run import Run
from tests.unit.own_code import CONFIG, MODEL, TOKENIZER, write

CLASSIFIER = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever is asked says yes, and what code is copied where it runs from stays here."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "_checked", set())
    yield
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


def rest_em(folder: Path, **changes: Any) -> RestEM:
    few = {"limit": 5, "limit_validation": 5, "limit_test": 5, "generate": {"samples": 2, "max_tokens": 32}}
    problems = folder.parent / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(60)))
    told = {"model": str(folder), "runs_dir": folder.parent / "runs", "problems": problems, **few}
    return RestEM.model_validate(told | changes)


def as_policy(folder: Path, code: ModelCode) -> None:
    check(loop, rest_em(folder, model_code=code), OnDrift.REFUSE)


def as_judge(folder: Path, code: ModelCode) -> None:
    Judge(config=JudgeConfig(model=str(folder), model_code=code)).check()


def as_reward_model(folder: Path, code: ModelCode) -> None:
    TrainedReward(config=RewardModelConfig(path=str(folder), model_code=code)).check()


def inspecting(folder: Path, code: ModelCode) -> None:
    model_tokenizer(InspectConfig(data=Path("rows.jsonl"), model=str(folder), model_code=code))


USES: dict[str, Callable[[Path, ModelCode], None]] = {
    "policy": as_policy,
    "judge": as_judge,
    "reward model": as_reward_model,
    "inspect": inspecting,
}
NEEDED = {
    "configuration": {"model_type": "own-{}", "config": CONFIG},
    "model": {"model_type": "own-{}", "config": CONFIG | MODEL, "tokenizer": TOKENIZER},
    "tokenizer": {"model_type": "apertus", "tokenizer": TOKENIZER},  # a model that has no tokenizer of its own there
}


def needing(folder: Path, case: str) -> Path:
    told = NEEDED[case]
    name = str(told["model_type"]).format(re.sub(r"\W", "-", folder.parent.name))
    return write(folder, **{**told, "model_type": name}, **CLASSIFIER)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", NEEDED)
def test_code_that_a_model_needs_is_refused_and_nobody_is_asked(tmp_path: Path, use: str, case: str) -> None:
    folder = tmp_path / "model"
    mark = needing(folder, case)
    with pytest.raises(ModelError) as refused:
        USES[use](folder, "refuse")
    assert f"The model in {folder} needs its own Python code (own.Own" in str(refused.value)
    assert "would run in your processes" in refused.value.why and "--model-code allow" in refused.value.what_next
    assert not mark.exists()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", NEEDED)
def test_it_runs_where_it_is_allowed(tmp_path: Path, use: str, case: str) -> None:
    mark = needing(tmp_path / f"allowed-{use.replace(' ', '-')}-{case}", case)
    USES[use](mark.with_name(mark.name.removesuffix("-has-run")), "allow")
    assert mark.exists()


def test_unless_it_is_said_code_runs_for_a_y(tmp_path: Path) -> None:
    """What all of this is for: if this fails, Transformers has become safer by itself."""
    mark = needing(tmp_path / "asked", "tokenizer")
    AutoTokenizer.from_pretrained(tmp_path / "asked")
    assert mark.exists()


@pytest.mark.parametrize("use", USES)
def test_a_model_that_transformers_knows_is_loaded_without_its_code(tmp_path: Path, use: str) -> None:
    mark = write(tmp_path / "model", "llama", CONFIG | MODEL, TOKENIZER, "PreTrainedTokenizerFast", **CLASSIFIER)
    USES[use](tmp_path / "model", "refuse")
    assert not mark.exists()


def test_a_known_configuration_with_a_model_of_its_own_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    mark = write(tmp_path / "model", "vit", MODEL)
    with pytest.raises(ModelError, match=r"needs its own Python code \(own\.OwnModel\)"):
        check_code(tmp_path / "model", "refuse", "AutoModelForCausalLM")
    with pytest.raises(ModelError, match=r"needs its own Python code"):
        load_weights("AutoModelForCausalLM", tmp_path / "model", "refuse")
    assert not mark.exists()


def test_code_that_is_in_another_repository_is_refused_even_where_code_is_allowed(tmp_path: Path) -> None:
    write(tmp_path / "model", "own", {"AutoConfig": "somebody/else--own.OwnConfig"})
    with pytest.raises(ModelError, match=r"is in another repository \(somebody/else--own\.OwnConfig\)\. .* digest"):
        as_policy(tmp_path / "model", "allow")


@pytest.mark.parametrize("content", ["", "[1]", '{"auto_map": 3}', '{"auto_map": {"AutoConfig": [1, null]}}'])
def test_an_auto_map_that_is_none_names_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert own_code(tmp_path) == []


def base(folder: Path, code: ModelCode, run: str = "run") -> Any:
    config = rest_em(folder, model_code=code, run=run)
    return base_policy(Run(config.directory), config).finished


def test_allowed_code_is_part_of_the_policy_and_of_its_digest(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder, "llama", CONFIG)
    refused, allowed = base(folder, "refuse", "refused"), base(folder, "allow", "allowed")
    assert "policy/own.py" not in refused.manifest.outputs and "policy/own.py" in allowed.manifest.outputs
    assert (refused.manifest.config, allowed.manifest.config) == ({}, {"model_code": "allow"})
    before = allowed.artifact("policy").digest
    assert refused.artifact("policy").digest != before
    (folder / "own.py").write_text("print('another')")
    assert base(folder, "allow", "later").artifact("policy").digest != before


def test_by_default_nothing_of_it_is_in_an_identity(tmp_path: Path) -> None:
    """Runs from before this setting was there go on."""
    plain = tmp_path / "plain"
    write(plain, "llama")
    for code in ("refuse", "allow"):  # a model without code is the same either way
        assert base(plain, code, f"plain-{code}").manifest.config == {}
        assert not Judge(config=JudgeConfig(model=str(plain), model_code=code)).identity().keys() & {"model_code"}
    with_code = tmp_path / "own"
    write(with_code, "llama", CONFIG)
    for code, told in (("refuse", {}), ("allow", {"model_code": "allow"})):
        judge = Judge(config=JudgeConfig(model=str(with_code), model_code=code)).identity()
        model = TrainedReward(config=RewardModelConfig(path=str(with_code), model_code=code)).identity()
        for identity in (judge, model):
            assert {key: value for key, value in identity.items() if key.startswith("model")} == told


def test_a_policy_that_was_trained_has_the_code_that_it_needs(tmp_path: Path) -> None:
    folder, trained = tmp_path / "trained-from", tmp_path / "trained"
    write(folder, "own-trained", CONFIG | MODEL, TOKENIZER)
    (folder / "model.safetensors").unlink()
    load_policy(folder, "float32", code="allow").save_pretrained(trained)
    load_tokenizer(folder, "allow").save_pretrained(trained)
    assert {path.name for path in trained.iterdir()} >= {"own.py", "model.safetensors", "tokenizer.json"}
    assert type(load_policy(trained, "float32", code="allow")).__name__ == "OwnModel"
    assert type(load_tokenizer(trained, "allow")).__name__ == "OwnTokenizer"
    with pytest.raises(ModelError, match="needs its own Python code"):
        load_policy(trained, "float32")


@pytest.mark.parametrize(("code", "trusted"), [("refuse", False), ("allow", True)])
def test_vllm_is_told_about_code_and_that_weights_are_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: ModelCode, trusted: bool
) -> None:
    told: dict[str, Any] = {}
    engine = SimpleNamespace(from_engine_args=lambda arguments: arguments)
    stand_in = SimpleNamespace(EngineArgs=lambda **arguments: told.update(arguments), LLMEngine=engine)
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setattr(vllm, "keep_imports", lambda: None)
    monkeypatch.setattr(vllm, "gc", SimpleNamespace(disable=lambda: None))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    vllm.start_engine(Served(tmp_path, "float32", 64, 0, code), EngineConfig())
    assert told["trust_remote_code"] is trusted
    assert told["load_format"] == "safetensors"


def programs(run: Run, given: Artifact) -> dict[str, Callable[[], object]]:
    """Every stage that starts a program on a policy."""
    at, launch, pairs = run.place("iter-1"), LaunchConfig(), {"current": given}
    supervised, preference = Training(SupervisedConfig(), launch), Training(PreferenceConfig(), launch)
    reward, learned = Training(RewardTrainConfig(), launch), {"current": PairsMeasured(given, given, 0.1, "logistic")}
    sampling = sample.Sampling(SamplingConfig(), EngineConfig())
    return {
        "generate": lambda: sample.generate(at, given, {sample.SAMPLES: given}, sampling),
        "train": lambda: train.train(at, given, given, supervised),
        "reference": lambda: measure_reference(at, given, pairs, preference),
        "pairs": lambda: train.train_on_pairs(at, given, learned, preference),
        "reward": lambda: train.train_reward_model(at, given, given, reward),
        "measure": lambda: measure_reward_model(at, given, given, ScoringConfig()),
        "merge": lambda: adapter.merge(given.path, given.path, run.directory / "policy", run.child_lock, code="allow"),
    }


@pytest.mark.parametrize("name", ["generate", "train", "reference", "pairs", "reward", "measure", "merge"])
def test_every_program_of_a_run_is_told_what_the_run_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Started(Exception):  # noqa: N818
        pass

    told: dict[str, Any] = {}

    def start(command: list[str], *_: Any) -> None:
        told.update(json.loads(Path(command[-1]).read_text()))
        raise Started

    monkeypatch.setattr(Run, "start", staticmethod(start))
    run = Run(tmp_path / "runs", model_code="allow")
    run.directory.mkdir()
    (tmp_path / "given").mkdir()
    with pytest.raises(Started):
        programs(run, Artifact(tmp_path / "given", "digest"))[name]()
    assert told["model_code"] == "allow"
    assert Run(tmp_path).model_code == "refuse"


class Pickled:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_weights_in_a_pickle_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder, "llama")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Pickled(tmp_path / "mark")))
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load_weights("AutoModelForCausalLM", folder, "refuse")
    assert not (tmp_path / "mark").exists()


COMMIT = "5f3b6e2c" * 5


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that has one model; returns what it was asked."""
    snapshot = tmp_path / "hub" / "snapshots" / COMMIT
    write(snapshot, "llama")
    asked: list[dict[str, Any]] = []

    def fetch(name: str, **told: Any) -> str:
        asked.append({"name": name} | told)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr(model_folder, "why_unreachable", lambda: None)
    return asked


@pytest.mark.parametrize(("code", "fetched"), [("refuse", False), ("allow", True)])
def test_code_is_fetched_only_where_it_is_allowed_and_pickles_never(
    hub: list[dict[str, Any]], code: ModelCode, fetched: bool
) -> None:
    resolve_model("somebody/model", JudgeConfig(model_code=code))
    patterns = hub[0]["allow_patterns"]
    assert ("*.py" in patterns) is fetched
    assert {pattern.rsplit(".")[-1] for pattern in patterns} <= {"safetensors", "json", "jinja", "model", "txt", "py"}


def test_a_revision_is_asked_for_and_its_commit_is_in_the_manifest(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    config = rest_em(tmp_path, model="somebody/model", model_revision="v1.0")
    made = base_policy(Run(config.directory), config).finished
    assert made is not None
    assert made.manifest.origin == {"model": "somebody/model", "commit": COMMIT}
    assert {told["revision"] for told in hub} == {"v1.0"}
    assert made.manifest.config == {}
    Judge(config=JudgeConfig(model="somebody/model", model_revision="v2")).check()
    assert hub[-1]["revision"] == "v2"


def test_a_folder_of_ones_own_has_no_revision(tmp_path: Path) -> None:
    write(tmp_path / "model", "llama")
    assert base(tmp_path / "model", "refuse").manifest.origin == {}
    choices: list[ModelChoice] = [rest_em(tmp_path, model_revision="main"), JudgeConfig(model_revision="main")]
    for choice in choices:
        with pytest.raises(
            ModelError, match=r"model_revision is main, and .* is a folder\. Only .* Leave model_revision"
        ):
            resolve_model(str(tmp_path / "model"), choice)


def test_the_digest_of_a_folder_is_what_it_was(tmp_path: Path) -> None:
    """Its code counts, as ever, or finished runs would have drifted."""
    write(tmp_path / "model", "llama")
    before = folder_digest(tmp_path / "model")
    (tmp_path / "model" / "own.py").write_text("")
    assert folder_digest(tmp_path / "model") != before


def test_every_form_has_the_settings(tmp_path: Path) -> None:
    given = {"model_code": "allow", "model_revision": "main"}
    pairs = {"pairs": tmp_path / "pairs.jsonl"}
    for settings in (RestEM(**given), RewardModel(**pairs, **given), JudgeConfig(**given), RewardModelConfig(**given)):
        assert (settings.model_code, settings.model_revision) == ("allow", "main")
    assert json.loads(RestEM().model_dump_json())["model_code"] == "refuse"


def test_loaders_ask_for_no_code_of_a_folder_that_has_none(tmp_path: Path) -> None:
    write(tmp_path / "model", "llama")
    assert load_config(tmp_path / "model", "refuse").model_type == "llama"


def test_digests_are_remembered_only_where_there_is_a_cache_folder(tmp_path: Path, monkeypatch) -> None:
    """A dry run digests the model, and is to write nothing."""
    cache, model = tmp_path / "cache", tmp_path / "model"
    monkeypatch.setenv("AUTODIDACT_CACHE", str(cache))
    model.mkdir()
    (model / "config.json").write_text("{}")
    first = folder_digest(model)
    assert not cache.exists()
    cache.mkdir()
    assert folder_digest(model) == first and (cache / "digests.json").exists()
