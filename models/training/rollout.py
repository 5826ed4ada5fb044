"""Groups of answers drawn inside a training program: an engine with the policy's weights of the moment, and rewards."""

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from data.rewards import load_reward, prepare_reward
from data.rows import Problem, Sample, Score
from data.scoring import Tally, check_errors, combine_scores, score_samples
from models.engine import Completion, Engine, Request, answers_in_order
from models.on_policy import JudgedBy, OnPolicyProgram
from models.rounds import ENOUGH_TO_TELL, scorer_ended
from models.shards import request_seed


@dataclass(frozen=True)
class Group:
    """The answers to one problem at one step, and their rewards; NaN where nothing could be graded."""

    problem: Problem
    prompt: list[int]
    answers: list[Completion]
    scores: list[Score]

    @property
    def rewards(self) -> list[float]:
        return [math.nan if score.value is None else score.value for score in self.scores]

    @property
    def has_spread(self) -> bool:
        """Whether there is something to learn: not all answers have the same reward."""
        return len({reward for reward in self.rewards if not math.isnan(reward)}) > 1


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

    def draw(self, engine: Engine, judge: "Judge", position: int) -> Drawn:
        """Draw this process's groups of a step.

        With dynamic sampling, groups without spread are replaced by groups of further problems, in a few rounds. If
        there are still too few, the first without spread fill up: their answers have no advantage.
        """
        train, drawn = self.program.train, Drawn([], position, [])
        for _ in range(1 + (train.refills if train.dynamic else 0)):
            missing = self.count - sum(group.has_spread for group in drawn.seen)
            if missing <= 0:
                break
            new = self._answered(engine, judge, range(drawn.position, drawn.position + missing))
            drawn.position += missing
            drawn.seen += new
        ordered = sorted(drawn.seen, key=lambda group: not group.has_spread)
        drawn.groups = ordered[: self.count]
        return drawn

    def _answered(self, engine: Engine, judge: "Judge", positions: range) -> list[Group]:
        asked = [self._at(position) for position in positions]
        answers = answers_in_order(engine, [self._request(problem, number) for number, problem in asked])
        drawn = [(problem, of_it) for (_, problem), of_it in zip(asked, answers, strict=True)]
        scored = zip(drawn, judge.scores(drawn), strict=True)
        return [Group(problem, self.prompts[problem.id], of_it, scores) for (problem, of_it), scores in scored]

    def _at(self, position: int) -> tuple[int, Problem]:
        """A problem of this process, with its place in the order of all; each pass has an order of its own."""
        number = position * self.place[1] + self.place[0]
        turn, place = divmod(number, len(self.problems))
        return number, self.problems[_order(self.program.seed, turn, len(self.problems))[place]]

    def _request(self, problem: Problem, number: int) -> Request:
        sampling = self.program.sampling
        seed = request_seed(self.program.seed, f"{number}/{problem.id}")
        told = sampling.samples, sampling.temperature, sampling.max_tokens, seed
        return Request(self.prompts[problem.id], *told, stop=tuple(self.stop), log_probs=True)


@lru_cache(maxsize=2)  # a step may reach into the next pass
def _order(seed: int, turn: int, count: int) -> list[int]:
    """The order of the problems in a pass."""
    return random.Random(f"{seed}/{turn}").sample(range(count), count)


class Judge:
    """Scores answers by the program's rewards, in processes beside the trainer. Counts what failed."""

    def __init__(self, rewards: JudgedBy, processes: Executor) -> None:
        self.rewards, self.tally, self._processes = rewards, Tally(), processes

    def scores(self, drawn: Sequence[tuple[Problem, Sequence[Completion]]]) -> list[list[Score]]:
        """The scores of the answers to each problem, in order.

        Raises:
            TooManyErrorsError: a reward failed on too many of the answers so far.
            ScorerError: a scoring process has ended.
        """
        found = []
        try:
            waiting = [self._processes.submit(_score, self.rewards, one[0], _samples(*one)) for one in drawn]
            for scores, tally in (one.result() for one in waiting):
                found.append(scores)
                self.tally.add(tally)
        except BrokenProcessPool as error:
            raise scorer_ended() from error
        if self.tally.samples >= ENOUGH_TO_TELL:
            check_errors(self.tally, self.rewards.max_error_share)
        return found


@contextmanager
def judge(rewards: JudgedBy) -> Iterator[Judge]:
    """A judge; its processes start at once, before this one holds a model."""
    pool = ProcessPoolExecutor(rewards.workers, initializer=_prepare, initargs=(rewards,))
    try:
        pool.submit(int).result()
        yield Judge(rewards, pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(rewards: JudgedBy) -> None:
    os.nice(10)
    for name in rewards.graders:
        prepare_reward(load_reward(name), rewards.isolation)


def _samples(problem: Problem, answers: Sequence[Completion]) -> list[Sample]:
    told = enumerate(answers)
    return [Sample(problem.id, i, one.text, one.token_ids, one.finish_reason, "", 0, "") for i, one in told]


def _score(rewards: JudgedBy, problem: Problem, samples: list[Sample]) -> tuple[list[Score], Tally]:
    tally = Tally()
    counted = Tally() if rewards.combination else tally
    parts = {
        name: list(score_samples([problem], samples, load_reward(name), grader, counted))
        for name, grader in rewards.graders.items()
    }
    if rewards.combination is None:
        return next(iter(parts.values())), tally
    grader = "+".join(rewards.graders.values())
    return list(combine_scores(samples, parts, rewards.combination, grader, tally)), tally
