"""Bad input to a reward model, as one is trained and as one is used: refused before anything heavy starts."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from flows import reward_model
from flows.commands.cli import main
from flows.commands.settings import read_settings
from flows.reward_model import RewardModel
from models import tiny
from models.config import RewardModelConfig
from models.loading import ModelError
from tasks.loop import preflight
from tasks.loop.preflight import check
from tasks.rollouts.trained_reward import TrainedReward, read_reward_model
from tasks.stage.contract import OnDrift

PAIR = {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "_checked", set())
    return tmp_path


@pytest.fixture
def model(folder: Path) -> Path:
    """A policy: a model folder with a tokenizer and no weights to speak of."""
    tiny.write_untrained(folder / "model", ["Ada has 4 books."] * 4)
    (folder / "model" / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return folder / "model"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reconfigure(model: Path, **changes: Any) -> RewardModelConfig:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return RewardModelConfig(path=str(model))


CLASSIFIER = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


def test_a_classifier_of_one_label_can_be_used(model):
    config = reconfigure(model, **CLASSIFIER)
    assert read_reward_model(config)[0] == model
    digest = TrainedReward(config=config).artifact().digest
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"{  }")
    assert None is not TrainedReward(config=config).artifact().digest != digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "config.json says LlamaForCausalLM with 2 labels"),
        ({**CLASSIFIER, "id2label": {"0": "a", "1": "b", "2": "c"}}, "LlamaForSequenceClassification with 3 labels"),
        ({"architectures": None}, "config.json says no architecture"),
    ],
)
def test_what_would_judge_by_random_weights_is_refused(model, changes, says):
    with pytest.raises(ModelError) as refused:
        TrainedReward(config=reconfigure(model, **changes)).check()
    assert says in str(refused.value)
    assert f"Train one: autodidact reward-model --model {model} --pairs FILE" in str(refused.value)


def test_no_path_and_no_model(folder):
    for use in (TrainedReward.check, TrainedReward.artifact):
        with pytest.raises(ModelError, match=r"no model is given\. Set its path to the best/policy"):
            use(TrainedReward(config=RewardModelConfig()))
    absent = RewardModelConfig(path=str(folder / "absent"))
    with pytest.raises(ModelError, match="is not a model: there is no such folder"):
        TrainedReward(config=absent).check()
    assert (
        TrainedReward(config=absent).artifact().digest is None
    )  # which may yet be trained: a dry run shows it as missing


def test_a_reward_model_without_template_is_refused(model):
    config = reconfigure(model, **CLASSIFIER)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"has no chat template.*Put the template that it was trained with"):
        TrainedReward(config=config).check()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["reward-model", *arguments]) == 2
    assert not (Path.cwd() / "runs" / "run").exists()
    return capsys.readouterr().err


def test_pairs_of_which_none_is_held_out_are_refused(capsys, folder):
    message = refused(capsys, "--pairs", write(folder / "pairs.jsonl", [PAIR]))
    assert "of its 1 pairs 0 are held out, by the hash of their prompts, and 1 are left" in message
    assert "--validation-pairs" in message


@pytest.mark.parametrize("setting", ["pairs", "validation_pairs"])
def test_bad_rows_of_either_file_are_refused(capsys, folder, setting):
    files = {"pairs": write(folder / "good.jsonl", [PAIR]), "validation_pairs": write(folder / "other.jsonl", [PAIR])}
    files[setting] = write(folder / "bad.jsonl", [PAIR, {"prompt": "?", "chosen": "2"}])
    arguments = [word for name, path in files.items() for word in (f"--{name.replace('_', '-')}", path)]
    message = refused(capsys, *arguments)
    assert "bad.jsonl, line 2" in message and "'rejected'" in message


def test_a_policy_without_template_is_refused(capsys, folder, model):
    (model / "chat_template.jinja").unlink()
    files = [write(folder / name, [PAIR]) for name in ("pairs.jsonl", "validation.jsonl")]
    message = refused(capsys, "--model", str(model), "--pairs", files[0], "--validation-pairs", files[1])
    assert "has no chat template" in message and "--template" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--pairs", "p.jsonl", "--train.margin", "-1"], "train.margin"),
        (["--pairs", "p.jsonl", "--held-out", "1"], "--held-out: Input should be less than 1"),
        (["--pairs", "p.jsonl", "--train.batch-size", "12"], "train.batch_size 12 is not a multiple"),
        ([], "pairs: Field required"),
    ],
)
def test_settings_out_of_range(capsys, arguments, says):
    assert says in refused(capsys, *arguments)


def test_defaults_are_the_published_settings_and_pass_every_check(folder):
    rows = [{**PAIR, "prompt": f"What is 1 + {n}?"} for n in range(100)]
    config, _ = read_settings(RewardModel, ["--pairs", write(folder / "pairs.jsonl", rows)], "autodidact reward-model")
    train = config.train
    assert (train.learning_rate, train.epochs, train.batch_size, train.schedule) == (9e-6, 1, 64, "cosine")
    assert (train.margin, train.centering, train.warmup, config.held_out) == (0, 0.01, 0.03, 0.1)
    plan = check(reward_model.loop, config, OnDrift.REFUSE)
    assert [p.stage.name for p in plan.plan] == ["base", "iter-1/pairs", "iter-1/train", "iter-1/measure", "best"]
    assert main(["reward-model", "--pairs", "pairs.jsonl", "--dry-run"]) == 0
