"""What is refused before a model loads, each with what is wrong, why, and what to do next."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from data.chat_template import TemplateError
from data.prepare.prompt_lengths import VocabularyError
from data.prepare.sources import DataFileError
from data.render import PromptTooLongError
from data.rewards import RewardError
from flows import dpo, reward_model
from flows.commands.cli import main
from flows.rest_em import RestEM, loop
from models import tiny
from models.loading import ModelError, load_tokenizer
from tasks.datasets.problems import prepare_problems
from tasks.loop import preflight
from tasks.loop.loop import run_loop
from tasks.loop.preflight import DiskSpaceError, check
from tasks.policies.model_folder import INDEX
from tasks.stage.contract import DriftError, Estimate, OnDrift, Stage, Status
from tasks.stage.run import Planned, Run, RunInUseError, open_run

Configure = Callable[..., RestEM]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a tokenizer and no weights to speak of."""
    folder = tmp_path_factory.mktemp("models") / "small"
    tiny.write_untrained(folder, ["Ada has 4 books.", "4+17=21 #### 21"] * 4)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    return folder


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(small_model, tmp_path / "model"))


@pytest.fixture
def configure(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """A run on the small model that passes every check, with changes."""
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "_checked", set())

    def make(**changes: Any) -> RestEM:
        settings = {
            "model": str(small_model),
            "run": "checked",
            "runs_dir": tmp_path / "runs",
            "limit": 5,
            "limit_validation": 5,
            "limit_test": 5,
            "generate": {"samples": 2, "max_tokens": 32},
        }
        return RestEM.model_validate(settings | changes)

    return make


def refused(error: type[Exception], config: RestEM, *says: str) -> str:
    with pytest.raises(error) as found:
        check(loop, config, OnDrift.REFUSE)
    for words in says:
        assert words in str(found.value)
    assert not (config.directory / "problems").exists()
    return str(found.value)


def test_a_run_that_can_work_passes_and_its_plan_is_returned(configure: Configure) -> None:
    plan = check(loop, configure(iterations=2), OnDrift.REFUSE).plan
    stages = [p.stage.name for p in plan]
    assert stages[:3] == ["problems", "base", "iter-0/evaluate"]
    assert stages[-3:] == ["best", "final/base", "final/best"]
    assert {p.status for p in plan} == {Status.RUN}


def test_a_run_of_the_embedded_model_passes(configure: Configure) -> None:
    assert check(loop, configure(model=None), OnDrift.REFUSE).parameters == tiny.PARAMETERS


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["config.json"], "it has no config.json"),
        (["model.safetensors"], "it has no *.safetensors weights"),
        (["tokenizer.json", "tokenizer_config.json"], "it has no tokenizer files"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_saying_what_it_lacks(
    configure: Configure, model: Path, missing: list[str], says: str
) -> None:
    for name in missing:
        (model / name).unlink()
    refused(ModelError, configure(model=str(model)), f"{model} is not a model", says, "Give a folder with", "hub id")


WEIGHTS = save({"weight": np.zeros(8, dtype=np.float32)})
TWO_FILES = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.safetensors": b""}, "is not a complete safetensors file"),
        ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0"}, "git lfs pull"),
        ({"model.safetensors": WEIGHTS[:40]}, "invalid header length"),
        ({"model.safetensors": WEIGHTS[:-4]}, "not fully covered"),
        ({"model.safetensors": WEIGHTS + b"\0"}, "not fully covered"),
        ({"model-1.safetensors": WEIGHTS, INDEX: TWO_FILES}, f"it lacks model-2.safetensors, which {INDEX} names"),
        ({"model-1.safetensors": WEIGHTS, INDEX: b"[]"}, f"its {INDEX} cannot be read"),
    ],
    ids=["empty", "pointer", "half a header", "cut off", "too long", "a file missing", "no index"],
)
def test_damaged_weights_are_refused_with_why(
    configure: Configure, model: Path, files: dict[str, bytes], says: str
) -> None:
    (model / "model.safetensors").unlink()
    for name, content in files.items():
        (model / name).write_bytes(content)
    refused(ModelError, configure(model=str(model)), f"{model} is not a model", says)


def test_weights_in_several_files_are_fine_where_all_are_there(configure: Configure, model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    (model / "model-2.safetensors").write_bytes(WEIGHTS)
    (model / INDEX).write_bytes(TWO_FILES)
    assert check(loop, configure(model=str(model)), OnDrift.REFUSE).parameters == 8


def test_a_folder_in_which_an_adapter_lies_beside_the_model_is_refused(configure: Configure, model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    refused(ModelError, configure(model=str(model)), f"{model} is not a model", "apply but vLLM would not")


@pytest.mark.parametrize("path", ["./absent", "{tmp_path}/absent", "~/absent-model-folder"])
def test_a_model_path_that_is_not_there_is_refused(configure: Configure, tmp_path: Path, path: str) -> None:
    path = path.format(tmp_path=tmp_path)
    refused(
        ModelError,
        configure(model=path),
        f"{os.path.expanduser(path)} is not a model",
        "there is no such folder",
        "Give a folder with",
    )


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", "{"), ("config.json", '{"model_type": "unheard-of"}'), ("tokenizer.json", "")]
)
def test_a_model_whose_files_cannot_be_read_is_refused_with_why(
    configure: Configure, model: Path, name: str, content: str
) -> None:
    (model / name).write_text(content)
    refused(ModelError, configure(model=str(model)), f"{model} cannot be read as a model: ")


def test_a_tokenizer_without_a_chat_template_is_refused_unless_one_is_given(
    configure: Configure, model: Path, tmp_path: Path
) -> None:
    (model / "chat_template.jinja").unlink()
    refused(TemplateError, configure(model=str(model)), f"{model} has no chat template", "--template, by name (alpaca")
    template = tmp_path / "template.jinja"
    template.write_text(tiny.CHAT_TEMPLATE)
    assert check(loop, configure(model=str(model), template=template), OnDrift.REFUSE).plan


def test_a_template_file_that_is_not_there_is_refused(configure: Configure) -> None:
    refused(TemplateError, configure(template="absent.jinja"), "no template absent.jinja", "relative to", "chatml")


BY_PARTS = (
    "{% for m in messages %}<|user|>{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}<|assistant|>"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"
)


@pytest.mark.parametrize(
    ("template", "changes", "says"),
    [
        (NO_SYSTEM, {"system": "Be brief."}, ["fails on the prompt '", "System role not supported", "system, user"]),
        (BY_PARTS, {}, ["leaves the user's message out of the prompt '", "content as a list of parts"]),
        ("<|assistant|>", {}, ["leaves the user's message out"]),
        ("{% for m in messages %}{{ m.content }}", {}, ["is not valid Jinja: ", "line 1"]),
        ("{{ messages[0]['content'] / 2 }}", {}, ["fails on the prompt '", "unsupported operand"]),
        ("{{ messages[9]['content'] + 'x' }}", {}, ["fails on the prompt '", "has no element 9"]),
        ("{{ range(10 ** 9) }}", {}, ["fails on the prompt '", "Range too big"]),
    ],
    ids=["no system", "parts", "empty", "syntax", "type", "undefined", "range"],
)
@pytest.mark.parametrize("given", [True, False], ids=["given", "the model's own"])
def test_a_template_that_cannot_render_a_prompt_is_refused_naming_it(
    configure: Configure,
    model: Path,
    tmp_path: Path,
    template: str,
    changes: dict[str, Any],
    says: list[str],
    given: bool,
) -> None:
    file = tmp_path / "template.jinja" if given else model / "chat_template.jinja"
    file.write_text(template)
    config = configure(model=str(model), template=file if given else None, **changes)
    message = refused(TemplateError, config, "Problem ", " of arithmetic: The chat template ", "--template", *says)
    assert len(message) < 800


def test_a_template_that_takes_no_system_message_is_fine_without_one(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text(NO_SYSTEM)
    assert check(loop, configure(template=tmp_path / "template.jinja"), OnDrift.REFUSE).plan


def test_a_tokenizer_without_eos_is_refused_unless_the_template_ends_answers_itself(
    configure: Configure, model: Path
) -> None:
    change(model / "tokenizer_config.json", eos_token=None)
    assert check(loop, configure(model=str(model)), OnDrift.REFUSE).plan
    (model / "chat_template.jinja").write_text(NO_SYSTEM)
    config = configure(model=str(model), limit=4)
    refused(TemplateError, config, f"{model} has no EOS token", "Set eos_token in its tokenizer_c")


def test_tokens_that_the_model_has_no_embeddings_for_are_refused(configure: Configure, model: Path) -> None:
    change(model / "config.json", vocab_size=2)
    problems = model.parent / "problems.jsonl"
    problems.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(60)))
    told = {"model": str(model), "problems": problems}
    refused(VocabularyError, configure(**told), "Problem ", "the prompt has token ", "for 2 tokens", "Resize")
    change(model / "config.json", vocab_size=0)
    save_file({"model.embed_tokens.weight": np.zeros((260, 4), dtype=np.float32)}, model / "model.safetensors")
    tokenizer = load_tokenizer(model, "refuse")
    tokenizer.add_special_tokens({"eos_token": "<|added|>"})
    tokenizer.save_pretrained(model)
    refused(
        VocabularyError,
        configure(**told),
        f"{model} ends an answer with the token '<|added|>' with the id ",
        "260 tokens",
    )


def test_a_tokenizer_with_tokens_that_no_prompt_has_is_fine(configure: Configure, model: Path) -> None:
    """Of Gemma 3, one that stands for images is beyond the embeddings of the smallest model."""
    tokenizer = load_tokenizer(model, "refuse")
    tokenizer.add_tokens([f"<|image {n}|>" for n in range(1000)])
    tokenizer.save_pretrained(model)
    assert len(tokenizer) > tiny.VOCABULARY
    assert check(loop, configure(model=str(model)), OnDrift.REFUSE).plan


def change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_pairs_that_cannot_be_rendered_are_refused_before_the_base_is_measured(
    configure: Configure, model: Path, tmp_path: Path
) -> None:
    (model / "chat_template.jinja").write_text(NO_SYSTEM)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    rows = [{"prompt": f"{n} + 1?", "chosen": "2", "rejected": "3"} for n in range(50)]
    last = {"prompt": turns, "chosen": [{"role": "assistant", "content": "2"}]}
    last["rejected"] = [{"role": "assistant", "content": "3"}]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in [*rows, last]))
    few = {"model": str(model), "runs_dir": tmp_path / "runs"}
    held_out = {"limit": 5, "limit_validation": 5, "limit_test": 5, "generate": {"samples": 2, "max_tokens": 32}}
    for module, config in (
        (dpo, dpo.DPO(pairs=pairs, train={"adapter": None}, **held_out, **few)),
        (reward_model, reward_model.RewardModel(pairs=pairs, **few)),
    ):
        with pytest.raises(
            TemplateError, match=r"Pair \w+ of .*pairs\.jsonl: The chat template fails.*System role not"
        ):
            check(module.loop, config, OnDrift.REFUSE)


def test_a_reward_model_that_cannot_read_the_problems_is_refused(configure: Configure, model: Path) -> None:
    (model / "chat_template.jinja").write_text(NO_SYSTEM)
    change(model / "config.json", architectures=["LlamaForSequenceClassification"], id2label={"0": "LABEL_0"})
    reward = {"name": "reward-model", "model": {"path": str(model)}}
    says = [r"for the reward model: The chat template fails", "System role not supported"]
    refused(TemplateError, configure(reward=reward, system="Be brief."), *says)
    (model / "chat_template.jinja").write_text(BY_PARTS)
    refused(TemplateError, configure(reward=reward), f"The reward model {model}: The chat template leaves the user's")


@pytest.mark.parametrize("template", [BY_PARTS, "{% if %}"])
def test_a_judge_with_a_template_that_does_not_work_is_refused(
    configure: Configure, model: Path, template: str
) -> None:
    (model / "chat_template.jinja").write_text(template)
    reward = {"name": "judge", "judge": {"model": str(model)}}
    held_out = {"reward": {"name": "final_answer"}}
    refused(TemplateError, configure(reward=reward, evaluate=held_out), f"The judge {model}: The chat template ")


def test_an_answer_that_does_not_fit_behind_its_prompt_is_refused(configure: Configure) -> None:
    config = configure(generate={"max_tokens": 1000})
    refused(PromptTooLongError, config, "Problem ", "1000 for the answer", "context of 1024", "generate.max_tokens")


def test_a_context_that_is_set_smaller_counts(configure: Configure) -> None:
    config = configure(engine={"max_model_len": 64}, generate={"max_tokens": 60})
    refused(PromptTooLongError, config, "context of 64", "60 for the answer")


def test_few_shot_examples_count_as_part_of_the_prompt(configure: Configure, tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps({"question": "1 + 1? " * 300, "answer": "2"}) + "\n")
    refused(PromptTooLongError, configure(few_shot=shots), "does not fit into the context of 1024")


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        ("final_anwser", ["Did you mean 'final_answer'?"]),
        ("no_such_module:reward", ["no module 'no_such_module'", "install it"]),
        ("data.rows:no_such_function", ["has no 'no_such_function'", "Check the name"]),
    ],
)
def test_a_reward_that_cannot_be_imported_is_refused(configure: Configure, reward: str, says: list[str]) -> None:
    refused(RewardError, configure(reward={"name": reward}), *says)


def test_a_problem_file_that_cannot_be_used_is_refused(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1 + 1?"}\n')
    refused(DataFileError, configure(problems=path), f"{path}, line 1: this is prompts", "also needs 'answer'")
    refused(DataFileError, configure(problems="absent.jsonl"), "There is no file absent.jsonl")


def test_a_problem_file_that_was_mended_is_read_again(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    config = configure(problems=path)
    path.write_text("")
    refused(DataFileError, config, "is empty")
    path.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": n + 1}) + "\n" for n in range(100)))
    assert check(loop, config, OnDrift.REFUSE).plan


def test_too_little_disk_is_refused_with_both_sizes(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000))
    config = configure()
    refused(DiskSpaceError, config, "needs up to", "0.0 GB free", "--runs-dir", "generate.samples")
    needed = preflight.peak_disk(preflight.plan_loop(loop, config, OnDrift.REFUSE).plan, "all")
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if fits:
            check(loop, config, OnDrift.REFUSE)
        else:
            refused(DiskSpaceError, config)


@pytest.mark.parametrize(("keep", "peak"), [("all", 130), ("last 2", 130), ("best", 120), ("last 1", 120)])
def test_the_disk_that_is_needed_is_what_is_held_at_once(keep: str, peak: int) -> None:
    """Rows of 5 for each of four iterations, a training that takes 80, and three or two earlier policies of 10."""
    stages = [
        Planned(Stage(f"iter-{number}/{kind}", 1, {}, {}, estimate=estimate), Status.RUN, None)
        for number in range(1, 5)
        for kind, estimate in (
            ("generate", Estimate(disk_bytes=5)),
            ("train", Estimate(disk_bytes=80, checkpoint_bytes=10)),
        )
    ]
    assert preflight.peak_disk(stages, keep) == peak
    assert preflight.peak_disk([replace(one, status=Status.REUSE) for one in stages], keep) == 0


def test_more_samples_need_more_disk(configure: Configure) -> None:
    few, many = (
        {p.stage.name: p.stage.estimate.disk_bytes for p in check(loop, config, OnDrift.REFUSE).plan}
        for config in (configure(), configure(generate={"samples": 2000, "max_tokens": 32}))
    )
    # 1,998 samples more for each of 5 problems, 32 tokens each, 4 bytes a token.
    assert many["iter-1/generate"] - few["iter-1/generate"] == 1998 * 5 * 32 * 4
    # 8 more of them are selected; each has a prompt and an answer of 32 tokens, 12 bytes a token.
    assert many["iter-1/train"] - few["iter-1/train"] == 8 * 5 * 64 * 12


def test_an_existing_run_of_another_configuration_is_refused_naming_the_difference(configure: Configure) -> None:
    made = configure(seed=1)
    prepare_problems(Run(made.directory, seed=made.seed), made)
    with pytest.raises(DriftError) as drift:
        check(loop, configure(seed=2), OnDrift.REFUSE)
    for words in ("problems is finished", "seed: 1 → 2", "--on-drift rebuild", "--on-drift accept", "another --run"):
        assert words in str(drift.value)
    assert check(loop, made, OnDrift.REFUSE).plan[0].status is Status.REUSE
    for accepted in (OnDrift.REBUILD, OnDrift.ACCEPT):
        assert check(loop, configure(seed=2), accepted).plan[0].status is Status.DRIFT


def test_a_run_that_is_in_use_is_refused_before_anything_is_done(configure: Configure) -> None:
    config = configure()
    with open_run(config.directory, {}, OnDrift.REFUSE):
        with pytest.raises(RunInUseError, match=r"is in use by process \d+ .*another --run name"):
            run_loop("ReST-EM", loop, config, OnDrift.REFUSE)
        assert not any(path.is_dir() for path in config.directory.iterdir())


def test_the_command_says_what_is_wrong_in_one_line_and_ends_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.stage.environment.prepare", lambda runs, dry_run: None)
    monkeypatch.chdir(tmp_path)
    assert main(["rest-em", "--model", "./absent"]) == 2
    assert capsys.readouterr().err.startswith("autodidact: ./absent is not a model: there is no such folder.")
    assert not (tmp_path / "runs").exists()
