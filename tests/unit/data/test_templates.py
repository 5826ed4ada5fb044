"""The templates by name: what they write, token by token, and which tokens are answers."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from data.chat_template import TEMPLATES, TemplateError, template_file
from data.formats.record import assistant, user
from data.render import completion_token_ids, prompt_and_answers, prompt_token_ids
from models import tiny

NAMES = [path.stem for path in TEMPLATES]
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [SYSTEM, user("你好吗？"), assistant("我很好。"), user("And you?")]
BEGIN, END = "<s>", "</s>"

WRITTEN = {
    "alpaca": "Be brief.\n\n### Instruction:\n你好吗？\n\n### Response:\n我很好。</s>\n\n### Instruction:\nAnd you?\n\n"
    "### Response:\n",
    "chatglm": "Be brief.\n\n[Round 1]\n\n问：你好吗？\n\n答：我很好。\n\n[Round 2]\n\n问：And you?\n\n答：",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n你好吗？<|im_end|>\n<|im_start|>assistant\n"
    "我很好。</s>\n<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n",
    "claude": "Be brief.\n\nHuman: 你好吗？\n\nAssistant: 我很好。</s>\n\nHuman: And you?\n\nAssistant:",
    "llama-2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n你好吗？ [/INST]我很好。</s><s>[INST] And you? [/INST]",
    "spin": "Be brief.\n\n### Instruction: 你好吗？\n\n### Response: 我很好。</s>\n\n### Instruction: And you?\n\n"
    "### Response: ",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\n你好吗？</s>\n<|assistant|>\n我很好。</s>\n<|user|>\nAnd you?</s>\n"
    "<|assistant|>\n",
}


def tokenizer_with(template: str, *special: str) -> Any:
    """A tokenizer that merges across words, with the template's signs as tokens of their own."""
    tokenizer = tiny.tiny_tokenizer(
        ["### Response: yes no\n\n### Instruction: Assistant: yes", *[t["content"] for t in TALK]]
    )
    tokenizer.add_special_tokens({"bos_token": BEGIN, "eos_token": END})
    tokenizer.add_tokens([AddedToken(sign, special=True, normalized=False) for sign in special])
    tokenizer.chat_template = template_file(Path(template)).read_text(encoding="utf-8")
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    signs = "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>"
    return {name: tokenizer_with(name, *signs) for name in NAMES}


def test_every_template_is_in_the_table() -> None:
    assert sorted(WRITTEN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_template_writes_what_was_published(tokenizers: dict[str, Any], name: str) -> None:
    tokenizer = tokenizers[name]
    assert tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False) == WRITTEN[name]
    assert tokenizer.decode(prompt_token_ids(tokenizer, TALK)) == WRITTEN[name]


def test_alpaca_without_a_system_message_begins_with_its_preamble(tokenizers: dict[str, Any]) -> None:
    written = tokenizers["alpaca"].decode(prompt_token_ids(tokenizers["alpaca"], [user("Hi?")]))
    assert written == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nHi?\n\n### Response:\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_covers_earlier_answers_with_their_eos_and_nothing_else(tokenizers: dict[str, Any], name: str) -> None:
    tokenizer = tokenizers[name]
    ids, answers = prompt_and_answers(tokenizer, TALK)
    assert ids == prompt_token_ids(tokenizer, TALK)
    said = tokenizer.decode([i for i, answer in zip(ids, answers, strict=True) if answer])
    assert said == {"claude": " 我很好。</s>", "chatglm": "我很好。"}.get(name, "我很好。</s>")
    (begin, end) = answers.index(True), len(answers) - answers[::-1].index(True)
    assert all(answers[begin:end])


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_trained_on_in_the_tokens_it_has_in_the_next_turn(tokenizers: dict[str, Any], name: str) -> None:
    tokenizer = tokenizers[name]
    prompt, completion = prompt_token_ids(tokenizer, TALK[:2]), completion_token_ids(tokenizer, TALK[2]["content"])
    if name == "chatglm":  # which writes no EOS after earlier answers
        completion = completion[:-1]
    assert prompt_token_ids(tokenizer, TALK)[: len(prompt) + len(completion)] == prompt + completion
    assert completion_token_ids(tokenizer, "")[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["chatml", "zephyr", "llama-2"])
@given(
    texts=st.lists(st.text(alphabet="ab #:\n你é.", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=5)
)
def test_between_special_tokens_ids_are_those_of_apply_chat_template(
    tokenizers: dict[str, Any], name: str, texts: list[str]
) -> None:
    tokenizer = tokenizers[name]
    talk = [(user, assistant)[number % 2](text) for number, text in enumerate(texts)]
    talk += [user("?")] if talk[-1]["role"] == "assistant" else []
    given_ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    if name == "llama-2":  # whose answers begin behind plain text: only there may tokens differ
        assert tokenizer.decode(prompt_token_ids(tokenizer, talk)) == tokenizer.decode(given_ids)
    else:
        assert prompt_token_ids(tokenizer, talk) == given_ids


def test_a_template_that_changes_earlier_answers_leaves_no_token_to_them(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'].upper()")
    ids, answers = prompt_and_answers(tokenizer, [user("Hi?"), assistant("yes"), user("And?")])
    assert not any(answers)
    assert "YES" in tokenizer.decode(ids)


def test_a_name_that_is_no_template_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(TemplateError, match=r"no template chatlm: no file.* Known names are alpaca, .*chatml"):
        template_file(Path("chatlm"))
