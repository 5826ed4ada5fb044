"""Learning from groups of answers, each relative to its own group: GRPO, Dr. GRPO, RLOO, DAPO."""

from collections.abc import Sequence
from typing import Any

import torch

from models.on_policy import GroupsConfig, Normalizer, OnPolicyProgram
from models.training.learner import Answer, Learner, answers_of
from models.training.policy_gradient import advantages, kl_divergence, overlong_penalty
from models.training.rollout import Group


class GroupLearner(Learner):
    """A policy that learns which answers are better than others to the same problem."""

    train: GroupsConfig

    def __init__(self, program: OnPolicyProgram, tokenizer: Any) -> None:
        super().__init__(program, tokenizer)
        self.needs_reference = self.train.kl > 0

    def prepare(self, groups: Sequence[Group]) -> tuple[list[Answer], list[list[float]], dict[str, float]]:
        answers, worths = answers_of(groups), self._advantages(groups)
        told = self._look(answers)
        for answer, worth in zip(answers, (worth for of_group in worths for worth in of_group), strict=True):
            answer.advantages = torch.full((len(answer.tokens),), worth)
        return answers, worths, told

    def _advantages(self, groups: Sequence[Group]) -> list[list[float]]:
        """The advantages of each group's answers; 0 in a group without spread, which only fills up."""
        lengths = torch.tensor([[len(sample.token_ids) for sample in group.samples] for group in groups])
        penalty = overlong_penalty(lengths, self.program.sampling.max_tokens, self.train.overlong)
        rewards = torch.tensor([group.rewards for group in groups]) + penalty
        # Without spread in their rewards, length alone is to teach nothing, nor rounding.
        teaches = torch.tensor([[float(group.has_spread)] for group in groups])
        found: list[list[float]] = (advantages(rewards, self.train.advantage) * teaches).tolist()
        return found

    def _size(self, tokens: float) -> tuple[Normalizer, float]:
        train = self.train
        whole = train.batch_size * self.program.sampling.max_tokens
        return train.normalizer, {"tokens": tokens, "sequence": train.batch_size, "constant": whole}[train.normalizer]

    def _losses(self, batch: list[Answer]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        now, mask = self._log_probs(self.engine, batch)
        per_token, watched = self._corrected(batch, now, mask)
        if self.train.kl:
            reference = self._aligned(batch, mask, "reference")
            per_token = per_token + self.train.kl * kl_divergence(now.log_probs, reference, self.train.kl_estimator)
        return per_token, mask, watched
