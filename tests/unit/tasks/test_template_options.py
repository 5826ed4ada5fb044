"""Options of a chat template as a setting: from the command line to the policy's folder and to a stage's identity."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from data.chat_template import TemplateError
from data.render import prompt_token_ids
from flows import dpo, rest_em, sft, spin
from flows.commands.cli import main
from flows.commands.settings import read_settings
from flows.rest_em import RestEM, loop
from models import tiny
from models.loading import load_tokenizer
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.loop import preflight
from tasks.loop.preflight import check
from tasks.policies.base import base_policy, write_bootstrap_inputs
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run

ASKED = [{"role": "user", "content": "Hi?"}]
STYLED = "{% if brief is true %}<|user|>!{% endif %}" + tiny.CHAT_TEMPLATE
OPENED = tiny.CHAT_TEMPLATE + "{% if add_generation_prompt and open is not false %}<|user|>{% endif %}"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "_checked", set())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny.write_untrained(tmp_path / "model", ["Ada has 4 books.", "Hi? Yes."] * 4)
    (tmp_path / "model" / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (tmp_path / "model" / "chat_template.jinja").write_text(STYLED)
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (["--template-options", "brief=true"], {"brief": True}),
        (
            ["--template-options", "brief=false,level=3", "--template-options", "how=low"],
            {"brief": False, "level": 3, "how": "low"},
        ),
        (["--template-options", '{"brief": false, "share": 0.5}'], {"brief": False, "share": 0.5}),
        (["--template-options", "day=2024-07-26"], {"day": "2024-07-26"}),
        (["--template-options", '{"said": "\\"no\\"", "open": "[["}'], {"said": '"no"', "open": "[["}),
        ([], {}),
    ],
)
def test_on_the_command_line_truth_values_and_numbers_are_what_they_say(arguments: list[str], read: Any) -> None:
    found = read_settings(RestEM, arguments, "autodidact rest-em")[0].template_options
    assert found == read
    again = RestEM.model_validate_json(RestEM.model_validate({"template_options": found}).model_dump_json())
    assert again.template_options == read
    assert [type(value) for value in found.values()] == [type(value) for value in read.values()]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("brief-er=true", "template_options.brief-er"),
        ('{"brief": [1]}', "template_options.brief"),
        ('{"brief": null}', "template_options.brief"),
    ],
)
def test_other_values_are_refused(given: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rest-em", "--template-options", given, "--dry-run"]) == 2
    assert says in capsys.readouterr().err


def test_the_base_keeps_them_with_its_template(model: Path, tmp_path: Path) -> None:
    made = {}
    for name, options in (("off", {}), ("on", {"brief": True})):
        config = RestEM.model_validate(
            {"run": name, "model": str(model), "template_options": options, "runs_dir": tmp_path / "runs"}
        )
        base = base_policy(Run(config.directory), config)
        tokenizer = load_tokenizer(base.path / "policy", "refuse")
        assert prompt_token_ids(tokenizer, ASKED) == policy_tokenizer(config).token_ids(ASKED, "")
        made[name] = tokenizer.decode(prompt_token_ids(tokenizer, ASKED)), base.finished.manifest.fingerprint
    assert [text for text, _ in made.values()] == ["<|user|>Hi?<|assistant|>", "<|user|>!<|user|>Hi?<|assistant|>"]
    assert made["on"][1] != made["off"][1]
    assert (model / "chat_template.jinja").read_text() == STYLED


def test_a_template_that_is_given_takes_them_too_and_so_does_the_embedded_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "given.jinja").write_text(STYLED)
    told = {"template": tmp_path / "given.jinja", "template_options": {"brief": True}}
    embedded = RestEM.model_validate(told)
    untrained, _ = write_bootstrap_inputs(tmp_path, embedded, embedded.bootstrap, 0)
    for tokenizer in (
        load_tokenizer(untrained, "refuse"),
        policy_tokenizer(embedded).tokenizer,
        policy_tokenizer(RestEM.model_validate(told | {"model": str(model)})).tokenizer,
    ):
        assert tokenizer.decode(prompt_token_ids(tokenizer, ASKED)) == "<|user|>!<|user|>Hi?<|assistant|>"


def test_an_option_that_the_template_lacks_is_refused_before_anything_starts(model: Path) -> None:
    config = RestEM.model_validate({"model": str(model), "template_options": {"breif": True}})
    with pytest.raises(TemplateError, match="the chat template has no option 'breif'"):
        check(loop, config, OnDrift.REFUSE)


@pytest.mark.parametrize("module", [sft, spin, dpo, rest_em])
def test_gold_answers_that_begin_otherwise_are_refused_until_an_option_makes_them_alike(
    model: Path, tmp_path: Path, module: Any
) -> None:
    (model / "chat_template.jinja").write_text(OPENED)
    pairs = [{"prompt": f"Is it {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    flow = {sft: sft.SFT, spin: spin.Spin, dpo: dpo.DPO, rest_em: rest_em.RestEM}[module]
    told = {"model": str(model), "generate": {"max_tokens": 32}, "limit": 5, "limit_validation": 5, "limit_test": 5}
    told |= {"pairs": "pairs.jsonl"} if module is dpo else {}
    told |= {"train": {"adapter": None}} if module in (sft, dpo) else {}
    if module is rest_em:  # which trains on own answers alone
        assert check(module.loop, flow.model_validate(told), OnDrift.REFUSE).plan
        return
    with pytest.raises(TemplateError, match="So gold answers would begin differently"):
        check(module.loop, flow.model_validate(told), OnDrift.REFUSE)
    alike = flow.model_validate(told | {"template_options": {"open": False}})
    assert check(module.loop, alike, OnDrift.REFUSE).plan


@pytest.mark.parametrize("module", [sft, spin, dpo])
@pytest.mark.parametrize("thought", ["", "<think>\nHm.\n</think>\n\n"])
def test_gold_answers_that_reason_are_refused_where_the_template_closes_reasoning(
    model: Path, tmp_path: Path, module: Any, thought: str
) -> None:
    closed = "{% set block = '<think>\n\n</think>\n\n' if open is false else '' %}"
    closing = tiny.CHAT_TEMPLATE.replace("'<|assistant|>'", "('<|assistant|>' + block)")
    (model / "chat_template.jinja").write_text(closed + closing)
    rows = [{"prompt": f"Is it {n}?", "chosen": f"{thought}Yes.", "rejected": "No."} for n in range(60)]
    if module is not dpo:
        rows = [{"prompt": row["prompt"], "response": row["chosen"]} for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flow = {sft: sft.SFT, spin: spin.Spin, dpo: dpo.DPO}[module]
    told = {"model": str(model), "generate": {"max_tokens": 32}, "template_options": {"open": False}}
    told |= {"pairs" if module is dpo else "problems": "rows.jsonl"}
    told |= {"train": {"adapter": None}} if module in (sft, dpo) else {}
    if thought:
        with pytest.raises(TemplateError, match=r" of rows\.jsonl: The chat template ends a prompt in"):
            check(module.loop, flow.model_validate(told), OnDrift.REFUSE)
    else:
        assert check(module.loop, flow.model_validate(told), OnDrift.REFUSE).plan


@pytest.mark.parametrize(("use", "code"), [("problems", 0), ("demonstrations", 2)])
def test_inspect_refuses_answers_that_begin_otherwise_where_they_are_to_be_learned(
    model: Path, tmp_path: Path, use: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "chat_template.jinja").write_text(OPENED)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "#### 2"}))
    assert main(["data", "inspect", "rows.jsonl", "--use", use, "--model", str(model)]) == code
    assert ("rows.jsonl, line 1: The chat template ends a prompt in" in capsys.readouterr().err) == (code == 2)


def test_inspect_shows_rows_with_the_options(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "Hi?", "output": "Yes."}))
    arguments = ["data", "inspect", "rows.jsonl", "--use", "demonstrations", "--model", str(model)]
    assert main([*arguments, "--template-options", "brief=true"]) == 0
    assert "<|user|>!<|user|>Hi?<|assistant|>" in capsys.readouterr().out
