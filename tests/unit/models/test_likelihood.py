"""The log-probability of an answer, against the product of the model's probabilities; what likelihoods come to."""

import math
from itertools import product

import pytest
import torch
from transformers import LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from data.likelihood import (
    accuracy_rows,
    likelihood_metrics,
    log_ratios,
    loss_details,
    loss_rows,
    preference_metrics,
)
from data.measures import difference, estimate
from data.rows import GoldLikelihood, MeasuredRow, PairLikelihood
from models.training.likelihood import log_probs_of
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


def test_the_loss_is_per_token_of_all_answers_and_perplexity_its_exponential():
    rows = loss_rows([GoldLikelihood("a", 0, -1.0, 10), GoldLikelihood("a", 1, -8.0, 2)])
    assert rows == [MeasuredRow("a", 0, 1.0, 10.0), MeasuredRow("a", 1, 8.0, 2.0)]
    assert estimate(rows, 0).value == pytest.approx(9 / 12)  # and not the mean of 0.1 and 4
    assert loss_details(rows) == pytest.approx({"perplexity": math.exp(0.75), "tokens": 12})
    assert loss_details([]) == {}


# Log-ratios of the chosen and the rejected answer: (2, -1), (-3, -3), (0.5, 1.5).
POLICY = [
    PairLikelihood("a", 0, -4.0, -9.0, 3, 3),
    PairLikelihood("a", 1, -8.0, -6.0, 3, 3),
    PairLikelihood("b", 0, -1.5, -2.5, 3, 3),
]
REFERENCE = [
    PairLikelihood("b", 0, -2.0, -4.0, 3, 3),
    PairLikelihood("a", 0, -6.0, -8.0, 3, 3),
    PairLikelihood("a", 1, -5.0, -3.0, 3, 3),
]
SHARED = {
    "rewards/chosen": 0.5 * (2 - 3 + 0.5) / 3,
    "rewards/rejected": 0.5 * (-1 - 3 + 1.5) / 3,
    "rewards/accuracies": 1 / 3,  # the tie is not accurate
    "rewards/margins": 0.5 * (3 + 0 - 1) / 3,
}
# With beta 0.5 the margins are 1.5, 0 and -0.5.
LOSSES = {
    "logistic": (math.log1p(math.exp(-1.5)) + math.log(2) + math.log1p(math.exp(0.5))) / 3,
    "hinge": (0 + 1 + 1.5) / 3,
}


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_dpos_metrics_by_hand(loss):
    ratios = log_ratios(POLICY, REFERENCE)
    assert ratios == [(2.0, -1.0), (-3.0, -3.0), (0.5, 1.5)]
    assert preference_metrics(ratios, 0.5, loss) == pytest.approx({"loss": LOSSES[loss], **SHARED})


@pytest.mark.parametrize(("loss", "limit"), [("logistic", 2000.0), ("hinge", 2001.0)])
def test_a_loss_of_a_margin_far_out_stays_finite(loss, limit):
    assert preference_metrics([(-1000.0, 1000.0)], 1.0, loss)["loss"] == pytest.approx(limit)
    assert preference_metrics([(1000.0, -1000.0)], 1.0, loss)["loss"] == 0.0


def test_pair_accuracy_counts_a_tie_as_a_half_so_that_a_policy_is_even_with_itself():
    assert accuracy_rows(POLICY, REFERENCE) == [
        MeasuredRow("a", 0, 1.0),
        MeasuredRow("a", 1, 0.5),
        MeasuredRow("b", 0, 0.0),
    ]
    assert estimate(accuracy_rows(POLICY, POLICY), 0).value == 0.5


@pytest.mark.parametrize("reference", [REFERENCE[:2], [*REFERENCE[:2], PairLikelihood("c", 0, -5.0, -3.0, 3, 3)]])
def test_likelihoods_of_other_pairs_are_no_reference(reference):
    with pytest.raises(ValueError, match="same pairs"):
        log_ratios(POLICY, reference)


def test_a_policy_that_has_diverged_has_no_perplexity():
    assert loss_details([MeasuredRow("a", 0, 800.0, 1.0)]) == {"tokens": 1.0}


def test_rows_of_one_prompt_are_drawn_together():
    alone = [MeasuredRow(f"p{n}", 0, float(n % 2)) for n in range(200)]
    eight = [MeasuredRow(f"p{row.problem_id}", index, row.value) for row in alone[:25] for index in range(8)]
    narrow, wide = estimate(alone, 0), estimate(eight, 0)
    assert wide.value == pytest.approx(12 / 25) and wide.high - wide.low > 2 * (narrow.high - narrow.low)
    nothing = [MeasuredRow(row.problem_id, row.index, 0.0) for row in eight]
    assert difference(eight, nothing, 0) == wide


def test_no_pairs_have_no_metrics():
    with pytest.raises(ValueError, match="no pairs"):
        preference_metrics([], 1.0, "logistic")
