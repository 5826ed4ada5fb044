"""Groups of answers drawn inside a training program: an engine with the policy's weights of the moment, and rewards."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from data.rows import Problem, Rollout, Sample, Score
from models.engine import Completion, Engine, Request, answers_in_order
from models.on_policy import OnPolicyProgram
from models.shards import request_seed
from models.training.rewards import Rewards


@dataclass(frozen=True)
class Group:
    """The answers to one problem at one step, and their scores.

    Attributes:
        log_probs: of each answer's tokens, in the engine that drew them.
    """

    problem: Problem
    prompt: list[int]
    samples: list[Sample]
    log_probs: list[list[float]]
    scores: list[Score]

    @property
    def rewards(self) -> list[float]:
        """One for each answer; NaN where nothing could be graded."""
        return [math.nan if score.value is None else score.value for score in self.scores]

    @property
    def has_spread(self) -> bool:
        """Whether there is something to learn: not all answers have the same reward."""
        return len({reward for reward in self.rewards if not math.isnan(reward)}) > 1

    def rollouts(self, step: int, advantages: Sequence[float] | None) -> Iterator[Rollout]:
        """The answers as rows. Without advantages, nothing was learned from them."""
        worths: Sequence[float | None] = advantages or [None] * len(self.samples)
        for sample, score, worth in zip(self.samples, self.scores, worths, strict=True):
            yield Rollout(
                problem_id=sample.problem_id,
                index=sample.index,
                step=step,
                completion=sample.text,
                token_ids=sample.token_ids,
                finish_reason=sample.finish_reason,
                seed=sample.seed,
                value=score.value,
                verdict=score.verdict,
                explanation=score.explanation,
                answer=score.answer,
                grader=score.grader,
                parts=score.parts,
                advantage=worth,
            )


@dataclass
class Drawn:
    """The groups that a step learns from.

    Attributes:
        position: how many problems this process has drawn since the first step.
        seen: all groups that were drawn for it.
    """

    groups: list[Group]
    position: int
    seen: list[Group]


class Rollouts:
    """Draws groups, from problems in an order that depends on the seed alone.

    Args:
        prompts: token ids by problem.
        stop: ids of tokens that end an answer.
        place: this process's number, and of how many.
    """

    def __init__(
        self,
        program: OnPolicyProgram,
        problems: Sequence[Problem],
        prompts: Mapping[str, list[int]],
        stop: list[int],
        place: tuple[int, int],
    ) -> None:
        self.program, self.problems, self.prompts, self.stop, self.place = program, problems, prompts, stop, place
        self.count = program.train.problems // place[1]

    def draw(self, engine: Engine, rewards: Rewards, position: int) -> Drawn:
        """Draw this process's groups of a step.

        With dynamic sampling, groups without spread are replaced by groups of further problems, in a few rounds. If
        there are still too few, the first without spread fill up: their answers have no advantage.
        """
        drawn = Drawn([], position, [])
        for _ in range(self.program.train.rounds):
            missing = self.count - sum(group.has_spread for group in drawn.seen)
            if missing <= 0:
                break
            new = self._answered(engine, rewards, range(drawn.position, drawn.position + missing))
            drawn.position += missing
            drawn.seen += new
        ordered = sorted(drawn.seen, key=lambda group: not group.has_spread)
        drawn.groups = ordered[: self.count]
        return drawn

    def _answered(self, engine: Engine, rewards: Rewards, positions: range) -> list[Group]:
        asked = [self._at(position) for position in positions]
        answered = answers_in_order(engine, [self._request(problem, number) for number, problem in asked])
        drawn = [
            (problem, self._samples(problem, number, answers))
            for (number, problem), answers in zip(asked, answered, strict=True)
        ]
        found = []
        for (problem, samples), answers, scores in zip(drawn, answered, rewards.scores(drawn), strict=True):
            log_probs = [answer.log_probs for answer in answers]
            found.append(Group(problem, self.prompts[problem.id], samples, log_probs, scores))
        return found

    def _at(self, position: int) -> tuple[int, Problem]:
        """A problem of this process, with its place in the order of all; each pass has an order of its own."""
        number = position * self.place[1] + self.place[0]
        turn, place = divmod(number, len(self.problems))
        return number, self.problems[order(self.program.seed, turn, len(self.problems))[place]]

    def _seed(self, problem: Problem, number: int) -> int:
        return request_seed(self.program.seed, f"{number}/{problem.id}")

    def _request(self, problem: Problem, number: int) -> Request:
        sampling = self.program.sampling
        told = sampling.samples, sampling.temperature, sampling.max_tokens, self._seed(problem, number)
        return Request(self.prompts[problem.id], *told, stop=tuple(self.stop), log_probs=True)

    def _samples(self, problem: Problem, number: int, answers: Sequence[Completion]) -> list[Sample]:
        """The answers, numbered through all passes over the problems."""
        first, seed = number // len(self.problems) * self.program.sampling.samples, self._seed(problem, number)
        return [
            Sample(problem.id, first + i, one.text, one.token_ids, one.finish_reason, "", seed + i, "")
            for i, one in enumerate(answers)
        ]


@lru_cache(maxsize=2)  # a step may reach into the next pass
def order(seed: int, turn: int, count: int) -> list[int]:
    """The order of so many rows in a pass over them."""
    return random.Random(f"{seed}/{turn}").sample(range(count), count)
