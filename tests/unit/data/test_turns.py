"""How an answer begins and ends: a person's exactly as the template has it, and as generation leaves a policy's own.

The templates act like those of Gemma 3, Phi 3, Llama 2, Qwen 3, its thinking sister, gpt-oss, DeepSeek R1 and GLM 4.
"""

from copy import copy
from typing import Any

import pytest
from tokenizers import AddedToken

from data.chat_template import TemplateError, choose_template, require_template, with_options
from data.formats.record import assistant, user
from data.render import (
    completion_token_ids,
    judged_token_ids,
    pad_token_id,
    prompt_and_answers,
    prompt_token_ids,
    require_end,
    stop_token_ids,
)
from models import tiny
from models.config import GenerateJob, SamplingConfig
from models.engine.vllm import sampling_parameters
from models.shards import engine_request

SIGNS = ("<eos>", "<turn>", "<end_of_turn>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>")
SIGNS += ("<s>", "</s>", "<|channel|>", "<|return|>", "\n\n")
ASKED, LATER = [user("Hi?")], [user("Hi?"), assistant("Yes."), user("And?")]

GEMMA = (
    "{% for m in messages %}<turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
GLM = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% set text = m['content'] %}"
    "{% if m['role'] == 'assistant' %}{% set thought = '' %}{% if '</think>' in text %}"
    "{% set thought = text.split('</think>')[0].split('<think>')[-1] | trim %}"
    "{% set text = text.split('</think>')[-1].lstrip() %}{% endif %}"
    "{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{% endif %}"
    "{{ text }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
QWEN = THOUGHTS + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
THINKER = THOUGHTS + "<think>\n{% endif %}"
CHANNELS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final\n{% endif %}"
    "{{ m['content'] }}{{ '<|return|>' if loop.last and m['role'] == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
REASONER = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}"
    "{% else %}<|assistant|>{{ m['content'].split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
QUIET = with_options(QWEN, {"enable_thinking": False})


@pytest.fixture(scope="module")
def made() -> Any:
    tokenizer = tiny.tiny_tokenizer(["Yes. No. Hi? And? thought assistant user model final"] * 4)
    tokenizer.add_special_tokens({"eos_token": "<eos>", "pad_token": "<eos>"})
    tokenizer.add_tokens([AddedToken(sign, special=True, normalized=False) for sign in SIGNS])
    return tokenizer


@pytest.fixture
def tokenizer(made: Any) -> Any:
    return copy(made)


FRAMED = [
    (GEMMA, "Yes.", "Yes.<end_of_turn>", "<end_of_turn>"),
    (GEMMA, "", "<end_of_turn>", "<end_of_turn>"),
    (PHI, "Yes.", "Yes.<|end|>", "<|end|>"),
    (LLAMA_2, "Yes.", " Yes. </s>", "</s>"),
    (GLM, "Yes.", "Yes.<eos>", "<eos>"),
    (CHANNELS, "Yes.", "<|channel|>final\nYes.<|return|>", "<|return|>"),
    (QUIET, "Yes.", "Yes.<|im_end|>", "<|im_end|>"),
    (QWEN, "Yes.", "<think>\n\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
    (QWEN, "<think>\nNo.\n</think>\n\nYes.", "<think>\nNo.\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
    (QWEN, "<think>No.</think>Yes.", "<think>\nNo.\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
    (THINKER, "Yes.", "\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
    (THINKER, "<think>\nNo.\n</think>\n\nYes.", "No.\n</think>\n\nYes.<|im_end|>", "<|im_end|>"),
]


@pytest.mark.parametrize(("template", "text", "written", "mark"), FRAMED)
def test_a_gold_answer_is_what_the_template_writes_behind_the_prompt(
    tokenizer: Any, template: str, text: str, written: str, mark: str
) -> None:
    tokenizer.chat_template = template
    ids, end = completion_token_ids(tokenizer, text), tokenizer.convert_tokens_to_ids(mark)
    assert tokenizer.decode(ids) == written
    assert ids[-1] == end and ids.count(end) == 1
    whole = tokenizer.apply_chat_template([*ASKED, assistant(text)], tokenize=False)
    if template is not GLM:
        assert whole.startswith(tokenizer.decode(prompt_token_ids(tokenizer, ASKED) + ids))
    assert judged_token_ids(tokenizer, ASKED, f"\n{text} ")[1] == ids


@pytest.mark.parametrize(("template", "text", "written", "mark"), FRAMED)
def test_generation_stops_at_the_same_token_and_at_eos(
    tokenizer: Any, template: str, text: str, written: str, mark: str
) -> None:
    tokenizer.chat_template = template
    assert {tokenizer.decode([number]) for number in stop_token_ids(tokenizer)} == {mark, "<eos>"}


def test_words_that_a_template_would_lose_stay_in_a_gold_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = QWEN
    text = "<think>a</think>b<think>c</think>d"
    assert tokenizer.decode(completion_token_ids(tokenizer, text)) == f"<think>\n\n</think>\n\n{text}<|im_end|>"


@pytest.mark.parametrize(
    ("template", "learned"),
    [
        (GEMMA, "Yes.<end_of_turn>"),
        (PHI, "Yes.<|end|>"),
        (LLAMA_2, " Yes. </s>"),
        (GLM, "Yes."),
        (QWEN, "Yes.<|im_end|>"),
        (QUIET, "Yes.<|im_end|>"),
        (THINKER, "Yes.<|im_end|>"),
        (CHANNELS, ""),  # an earlier answer stands behind more than its prompt
        (REASONER, "Yes.<eos>"),
    ],
)
def test_earlier_answers_are_learned_with_what_ends_them(tokenizer: Any, template: str, learned: str) -> None:
    tokenizer.chat_template = template
    ids, answers = prompt_and_answers(tokenizer, LATER)
    assert tokenizer.decode([i for i, answer in zip(ids, answers, strict=True) if answer]) == learned
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(LATER, add_generation_prompt=True, tokenize=False)


def test_a_gold_answer_that_would_begin_otherwise_than_the_policys_own_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = REASONER
    with pytest.raises(TemplateError) as refused:
        completion_token_ids(tokenizer, "Yes.")
    for words in ("ends a prompt in '<|user|>?<|assistant|><think>\\n'", "gold answers would begin", "template_opt"):
        assert words in str(refused.value)
    assert stop_token_ids(tokenizer) == [tokenizer.eos_token_id]
    # All answers that a reward model reads are rendered from their texts, so they do begin alike.
    assert tokenizer.decode(judged_token_ids(tokenizer, ASKED, "Yes.")[1]) == "Yes.<eos>"


def test_a_gold_answer_that_reasons_where_the_policy_does_not_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = QUIET
    with pytest.raises(TemplateError) as refused:
        completion_token_ids(tokenizer, "<think>\nNo.\n</think>\n\nYes.")
    for words in (
        "assistant\\n<think>\\n\\n</think>\\n\\n', and a gold answer",
        "reasoning of its own: '<think>",
        "template_options",
    ):
        assert words in str(refused.value)
    choose_template(tokenizer, None, {"enable_thinking": True})
    assert tokenizer.decode(completion_token_ids(tokenizer, "<think>No.</think>Yes.")).startswith("<think>\nNo.")


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (REASONER.replace("{{ eos_token }}", "<|end|>"), "<|end|>"),  # refused for gold answers, and yet it has an end
        ("{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>", "<eos>"),
        ("{% for m in messages %}<|user|>{{ m['content'] }}<|end|>\n{% endfor %}<|assistant|>", "<|end|>"),
        ("{% for m in messages %}<turn>{{ m['role'] }} {{ m['content'] }}<|end|>{% endfor %}", "<|end|>"),
    ],
)
def test_what_asks_for_an_answer_is_not_taken_for_its_end(tokenizer: Any, template: str, ends: str) -> None:
    tokenizer.chat_template = template
    assert {tokenizer.decode([number]) for number in stop_token_ids(tokenizer)} == {ends, "<eos>"}


def test_a_template_that_takes_no_answers_is_ended_by_eos(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}{{ messages }}"
    assert stop_token_ids(tokenizer) == [tokenizer.eos_token_id]


@pytest.mark.parametrize(("template", "ends"), [(GEMMA, ["<end_of_turn>"]), (LLAMA_2, ["</s>"]), (GLM, [])])
def test_without_eos_the_templates_own_end_suffices(tokenizer: Any, template: str, ends: list[str]) -> None:
    tokenizer.chat_template = template
    tokenizer.eos_token = tokenizer.pad_token = None
    assert [tokenizer.decode([number]) for number in stop_token_ids(tokenizer)] == ends
    if not ends:
        with pytest.raises(TemplateError, match="m has no EOS token, and its chat template has no end-of-turn token"):
            require_end(tokenizer, "m")
        return
    require_end(tokenizer, "m")
    assert [pad_token_id(tokenizer)] == stop_token_ids(tokenizer)
    assert completion_token_ids(tokenizer, "Yes.")[-1] == pad_token_id(tokenizer)


def test_vllm_is_told_where_to_stop(tmp_path: Any) -> None:
    job = GenerateJob(problems=tmp_path, output=tmp_path, sampling=SamplingConfig(), seed=0, shard_size=1)
    assert sampling_parameters(engine_request(job, "p", [5], [1, 106])).stop_token_ids == [1, 106]


@pytest.mark.parametrize("value", [True, False, 3, -0.5, "low", 'a "b" \\ %} é😀\n', "false", ""])
def test_an_option_is_what_the_template_sees(tokenizer: Any, value: Any) -> None:
    template = "{{ messages[0]['content'] }}{{ option | tojson }}"
    tokenizer.chat_template = template
    seen = tokenizer.apply_chat_template(ASKED, tokenize=False, option=value)
    choose_template(tokenizer, None, {"option": value})
    assert tokenizer.apply_chat_template(ASKED, tokenize=False) == seen


def test_options_are_a_part_of_the_template_and_of_its_digest(tokenizer: Any) -> None:
    tokenizer.chat_template = QWEN
    digests = [require_template(tokenizer, "m")]
    for value in (False, True):
        choose_template(tokenizer, None, {"enable_thinking": value})  # the later one counts
        digests.append(require_template(tokenizer, "m"))
        empty = prompt_token_ids(tokenizer, ASKED)[-1] == tokenizer.convert_tokens_to_ids("\n\n")
        assert empty == (not value)
    assert len(set(digests)) == 3
    assert with_options(GEMMA, {}) == GEMMA


def test_options_change_nothing_else_of_a_template() -> None:
    for text in ("\n\nHi", "  {% if true %}x{% endif %}", "{%- if option -%} y {% endif %}"):
        assert with_options(text, {"option": 1} if "option" in text else {}).endswith(text)


@pytest.mark.parametrize("name", ["enable_thinkng", "think", "messages", "add_generation_prompt"])
def test_an_option_that_the_template_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(TemplateError, match=f"template_options: the chat template has no option '{name}'"):
        with_options(QWEN, {name: False})
