"""PPO: a value model says what was to be expected at each token, and the policy learns from the difference.

The formulas are in actor_critic.py.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from trl.trainer.utils import disable_dropout_in_model, pad

from models.adapters.adapter import HEAD
from models.on_policy import OnPolicyProgram, PPOConfig
from models.training.actor_critic import (
    explained_variance,
    generalized_advantages,
    next_kl_weight,
    scores_of_ends,
    token_rewards,
    value_loss,
    whitened,
)
from models.training.common import load_reward_model
from models.training.learner import Answer, Learner, answers_of, diverged
from models.training.mix import Mix
from models.training.rollout import Group

TINY = 1e-6
SCORES = ("scores", "sum_of_scores", "sum_of_squares")  # so far
USUAL_LOSS = "usual_value_loss"  # the largest of that in the first step and those of values that are all 0


class PolicyAndValue(torch.nn.Module):  # type: ignore[misc]
    """A policy and the model of its values, which one engine trains, spreads and saves."""

    def __init__(self, policy: Any, value: Any) -> None:
        super().__init__()
        self.policy, self.value = policy, value

    def forward(self, **inputs: Any) -> tuple[Any, torch.Tensor]:
        """The policy's output, and the value of what precedes each token, shape (answers, length − 1)."""
        told = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        trunk = getattr(self.value, self.value.base_model_prefix)
        states = trunk(**told, use_cache=False).last_hidden_state
        return self.policy(**inputs), getattr(self.value, HEAD)(states).squeeze(-1)[:, :-1].float()


class PPOLearner(Learner):
    """A policy with a value model. What the next step depends on besides their weights is in `numbers`."""

    train: PPOConfig

    def __init__(self, program: OnPolicyProgram, tokenizer: Any) -> None:
        super().__init__(program, tokenizer)
        self.numbers = {"kl_weight": self.train.kl} | dict.fromkeys((*SCORES, USUAL_LOSS), 0.0)
        self._mix, self._loss_of_zero = None, 0.0  # the value model's, if all values were 0
        if program.mix is not None and self.train.mixed:
            place = self.accelerator.process_index, self.accelerator.num_processes
            rows = self.train.batch_size * self.train.mixed
            self._mix = Mix(program.mix, tokenizer, program.seed, rows, place)

    def _module(self, policy: Any, tokenizer: Any) -> Any:
        program, launch = self.program, self.program.launch
        assert program.value is not None
        torch.manual_seed(program.seed)
        told = program.value, tokenizer, self.train.dtype, False, program.value_code, launch.attention
        value = load_reward_model(*told)
        if self.train.value_from == "policy":
            from deepspeed.runtime.zero import GatheredParameters  # looks for an accelerator at once

            head = list(getattr(value, HEAD).parameters())
            with torch.no_grad(), GatheredParameters(head, modifier_rank=0, enabled=launch.zero_stage == 3):
                for weight in head:
                    weight.zero_()
        disable_dropout_in_model(value)
        if launch.gradient_checkpointing:
            value.gradient_checkpointing_enable({"use_reentrant": False})
        return PolicyAndValue(policy, value)

    def _new_optimizer(self, model: Any) -> torch.optim.Optimizer:
        """One with parts of their own for the value model, if it has a learning rate of its own."""
        train = self.train
        if train.value_learning_rate is None:
            return super()._new_optimizer(model)
        optimizer, values = super()._new_optimizer(model.policy), super()._new_optimizer(model.value)
        for group in values.param_groups:
            optimizer.add_param_group(group | {"times": train.value_learning_rate / train.learning_rate})
        return optimizer

    @property
    def _policy(self) -> Any:
        return self.engine.module.policy

    def _of_policy(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {k.removeprefix("policy."): v for k, v in weights.items() if k.startswith("policy.")}

    def prepare(self, groups: Sequence[Group]) -> tuple[list[Answer], list[list[float]], dict[str, float]]:
        train, answers = self.train, answers_of(groups)
        told = self._look(answers)
        samples = [sample for group in groups for sample in group.samples]
        given = torch.tensor([reward for group in groups for reward in group.rewards])
        ended = torch.tensor([sample.finish_reason == "stop" for sample in samples])
        replaced = ~ended if train.no_end is not None else torch.zeros_like(ended)
        scores = scores_of_ends(self._scaled(given, ~replaced), ended, train.no_end)
        graded = ~scores.isnan()
        mask = pad([torch.ones(len(answer.tokens)) for answer in answers], padding_value=0) * graded[:, None]
        old, reference, values = (_padded(answers, name) for name in ("old", "reference", "values"))
        rewards = token_rewards(scores.nan_to_num(0.0), old, reference, mask, self.numbers["kl_weight"])
        advantages, returns = generalized_advantages(rewards, values, mask, train.discount, train.decay)
        white = whitened(advantages, mask, self._sum)
        for row, answer in enumerate(answers):
            length = len(answer.tokens)
            answer.advantages, answer.returns = white[row, :length], returns[row, :length]
            answer.learned, answer.mixed = mask[row, :length], torch.zeros(length)
        explained = explained_variance(values, returns, mask, self._sum)
        away = ((old - reference) * mask).sum()
        count, divergence, score, reward = self._total(
            torch.stack([graded.sum(), away, scores.nansum(), rewards.sum()]).double()
        )
        squared, tokens = self._total(torch.stack([(returns**2 * mask).sum(), mask.sum()]).double())
        self._loss_of_zero = squared / 2 / max(tokens, 1)
        told |= {
            "score": score / max(count, 1),
            "reward_after_penalties": reward / max(count, 1),
            "kl_per_answer": divergence / max(count, 1),
            "kl_weight": self.numbers["kl_weight"],
            "explained_variance": explained,
        }
        if train.kl_target is not None and count:
            follows = divergence / count, train.kl_target, int(count), train.kl_horizon
            self.numbers["kl_weight"] = next_kl_weight(self.numbers["kl_weight"], *follows)
        worths = (white.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).tolist()
        found, first = [], 0
        for group in groups:
            found.append(worths[first : first + len(group.samples)])
            first += len(group.samples)
        return answers, found, told

    def learn(self, step: int, answers: list[Answer], seen: dict[str, float]) -> dict[str, float]:
        told = super().learn(step, answers, seen)
        loss, limit = told["value_loss"], self.train.runaway_value_loss
        if self.numbers[USUAL_LOSS] == 0:
            self.numbers[USUAL_LOSS] = loss
        self.numbers[USUAL_LOSS] = usual = max(self.numbers[USUAL_LOSS], self._loss_of_zero)
        if limit is not None and loss > limit * usual:
            raise diverged(
                f"The value model's loss of step {step + 1} is {loss:.3g}. In the first step, or of values that "
                f"are all 0, it was {usual:.3g} at most; train.runaway_value_loss allows {limit:g} times as much.",
                "Lower train.value_learning_rate",
            )
        return told

    def _beside(self, update: int, tokens: float) -> list[Answer]:
        return self._mix.of_update(update, tokens, self._total) if self._mix else []

    def _scaled(self, scores: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Scores, over the standard deviation of all so far if that is wanted.

        Args:
            counts: which of them belong to it.
        """
        if not self.train.scale_rewards:
            return scores
        counted = scores[counts & ~scores.isnan()].double()
        new = self._total(torch.stack([torch.ones_like(counted).sum(), counted.sum(), (counted**2).sum()]))
        self.numbers |= {name: self.numbers[name] + value for name, value in zip(SCORES, new, strict=True)}
        count, summed, squares = (self.numbers[name] for name in SCORES)
        mean = summed / max(count, 1)
        deviation = math.sqrt(max(squares / max(count, 1) - mean**2, 0.0))
        return scores / deviation if deviation > TINY * max(1.0, abs(mean)) else scores  # or rounding would blow up

    def _sum(self, numbers: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self._total(numbers), dtype=torch.float64)

    def _first_pass(self, batch: list[Answer]) -> tuple[Any, torch.Tensor]:
        (now, values), mask = self._log_probs(self.engine, batch)
        for row, answer in enumerate(batch):
            answer.values = values[row][mask[row]].cpu()
        return now, mask

    def _losses(self, batch: list[Answer]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        (now, values), mask = self._log_probs(self.engine, batch)
        per_token, watched = self._corrected(batch, now, mask)
        old, returns, learned = (self._aligned(batch, mask, name) for name in ("values", "returns", "learned"))
        of_value, near = value_loss(values, old, returns, self.train.value_clip)
        whole = (per_token + self.train.value_weight * of_value) * learned
        watched |= {"value_loss": of_value * learned, "value_clipped": near * learned}
        if self._mix is None:
            return whole, mask, watched
        unlikely = -now.log_probs * self._aligned(batch, mask, "mixed")
        return whole + self.train.ptx * unlikely, mask, watched | {"ptx_loss": unlikely}


def _padded(answers: Sequence[Answer], name: str) -> torch.Tensor:
    return pad([getattr(answer, name) for answer in answers], padding_value=0)
