"""The engine Transformers: greedy as `generate`, drawn by an answer's own seed, held to a schema, with new weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from data.arithmetic import embedded_problems
from data.render import prompt_token_ids, stop_token_ids
from models.config import EngineConfig
from models.engine import Request, Served, answers_in_order
from models.engine.transformers import Transformers, processed
from models.loading import load_tokenizer, load_weights
from tasks.policies.shipped import BASES, POLICY

BASE = BASES / "half-bare" / POLICY


@pytest.fixture(scope="module")
def engine() -> Transformers:
    return Transformers(Served(BASE, "float32", 200, 0), EngineConfig(max_num_seqs=8))


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    tokenizer = load_tokenizer(BASE, "refuse")
    asked = [p for p in embedded_problems(0) if p.split == "validation"][:12]
    prompts = [prompt_token_ids(tokenizer, p.messages) for p in asked]
    return [Request(ids, 1, 0.0, 24, None, stop=tuple(stop_token_ids(tokenizer))) for ids in prompts]


def test_greedy_answers_are_those_of_generate(engine: Transformers, requests: list[Request]) -> None:
    model = load_weights("AutoModelForCausalLM", BASE, "refuse", dtype="float32").eval()
    for request, (answer,) in zip(requests, answers_in_order(engine, requests), strict=True):
        ids = torch.tensor([request.prompt])
        told = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": list(request.stop), "pad_token_id": 0}
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **told)[0, ids.shape[1] :].tolist()
        assert answer.token_ids == found
        assert answer.finish_reason == ("stop" if found[-1] in request.stop else "length")


def test_an_answer_depends_on_its_seed_alone(engine: Transformers, requests: list[Request]) -> None:
    drawn = [replace(r, samples=2, temperature=1.0, seed=10 * n, log_probs=True) for n, r in enumerate(requests)]
    together = answers_in_order(engine, drawn)
    assert any(first.token_ids != second.token_ids for first, second in together)
    for number, request in enumerate(drawn):  # alone, and each by itself
        ((second,),) = answers_in_order(engine, [replace(request, samples=1, seed=10 * number + 1)])
        assert second.token_ids == together[number][1].token_ids
        (read,) = engine.likelihoods([(request.prompt, second.token_ids)])
        assert sum(second.log_probs) == pytest.approx(read, abs=1e-4)


def test_requests_are_batched_by_what_they_have_in_common(engine: Transformers, requests: list[Request]) -> None:
    sizes: list[int] = []
    decode = engine._decode
    engine._decode = lambda rows: (sizes.append(len(rows)), decode(rows))[1]  # type: ignore[method-assign]
    try:
        marked = [replace(request, together=str(number // 5)) for number, request in enumerate(requests)]
        asked = [*marked[:7], None, *marked[7:]]
        found = dict(engine.stream(asked))
    finally:
        engine._decode = decode  # type: ignore[method-assign]
    assert sizes == [5, 2, 3, 2] and sorted(found) == list(range(12))


def test_a_schema_is_kept_and_ends_the_answer(engine: Transformers, requests: list[Request]) -> None:
    schema = {"type": "object", "properties": {"score": {"enum": [1, 2, 3]}}, "required": ["score"]}
    told = replace(requests[0], schema=schema | {"additionalProperties": False})
    ((answer,),) = answers_in_order(engine, [told])
    assert json.loads(answer.text)["score"] in (1, 2, 3) and answer.finish_reason == "stop"


def test_new_weights_change_the_answers(engine: Transformers, requests: list[Request], tmp_path: Path) -> None:
    before = answers_in_order(engine, requests[:2])
    weights = {name: tensor.clone() for name, tensor in engine._model.state_dict().items()}
    engine.load((name, torch.zeros_like(tensor)) for name, tensor in weights.items())
    assert answers_in_order(engine, requests[:2]) != before
    engine.load(weights.items())
    assert answers_in_order(engine, requests[:2]) == before


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.7, 5, 1.0), (1.3, 0, 0.9), (1.0, 20, 0.5), (2.0, 0, 1.0)]
)
def test_scores_are_processed_as_transformers_does_it(temperature: float, top_k: int, top_p: float) -> None:
    scores = torch.randn(50, generator=torch.Generator().manual_seed(0))
    expected = TemperatureLogitsWarper(temperature)(None, scores[None])
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    assert torch.equal(processed(scores, temperature, top_k, top_p), expected[0])
