"""The log-probability of an answer, against the product of the model's probabilities, token by token."""

import math
from itertools import product

import pytest
import torch
from transformers import LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from data.likelihood import likelihood_metrics
from data.rows import PairLikelihood
from models.likelihood import log_probs_of
from tests.unit.toy import toy_llama

VOCABULARY = 4
PROMPT = [3, 1]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    made = toy_llama(VOCABULARY)
    add_fused_lm_head(made)
    return made


def brute_force(model: LlamaForCausalLM, prompt: list[int], answer: list[int]) -> float:
    """The product of the probabilities, one forward pass for each token."""
    probability = 1.0
    for position, token in enumerate(answer):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer[:position]])).logits[0, -1]
        probability *= logits.softmax(-1)[token].item()
    return probability


def test_it_is_the_log_of_the_product_over_tokens_whatever_the_padding(model):
    answers = [[0], [1, 2], [2, 2, 1], [0, 3, 1, 2]]
    together = log_probs_of(model, [(PROMPT, answer) for answer in answers], 0, "cpu")
    for answer, found in zip(answers, together, strict=True):
        assert math.exp(found) == pytest.approx(brute_force(model, PROMPT, answer), rel=1e-4)
        assert found == pytest.approx(log_probs_of(model, [(PROMPT, answer)], 0, "cpu")[0], abs=1e-4)


def test_the_probabilities_of_all_answers_of_a_length_add_up_to_one(model):
    answers = [list(answer) for answer in product(range(VOCABULARY), repeat=3)]
    found = log_probs_of(model, [(PROMPT, answer) for answer in answers], 0, "cpu")
    assert sum(map(math.exp, found)) == pytest.approx(1.0, abs=1e-4)


def test_figures_of_a_set_of_pairs():
    rows = [PairLikelihood("a", 0, -2.0, -6.0, 4, 2), PairLikelihood("b", 0, -4.0, -2.0, 8, 2)]
    metrics = likelihood_metrics(rows)
    assert metrics.gap == pytest.approx((4 - 2) / 2)
    assert metrics.chosen_per_token == pytest.approx(-6 / 12)
    assert metrics.rejected_per_token == pytest.approx(-8 / 4)
    assert (metrics.chosen_tokens, metrics.rejected_tokens, metrics.pairs) == (6, 2, 2)


def test_no_pairs_are_no_figures():
    with pytest.raises(ValueError, match="no pairs"):
        likelihood_metrics([])
