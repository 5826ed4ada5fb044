"""Rewards inside a training program: functions in processes beside it, a reward model here, a judge at its endpoint."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager

import torch

from data.rewards import load_reward, prepare_reward
from data.rows import Problem, Sample, Score
from data.scoring import Tally, check_errors, combine_scores, score_samples
from models.asking.judge import asking, judged
from models.config import JudgeProgram, RewardScoreProgram
from models.on_policy import JudgedBy
from models.rounds import ENOUGH_TO_TELL, scorer_ended
from models.training.reward_score import Judge as RewardModel

Group = tuple[Problem, Sequence[Sample]]  # a problem and the answers to it
Model = Callable[[Sequence[Group]], list[list[Score]]]


class Rewards:
    """Scores groups of answers by the program's rewards. Counts what failed, and the seconds that it takes."""

    def __init__(self, config: JudgedBy, models: dict[str, Model], processes: Executor | None) -> None:
        self.config, self.tally, self.seconds = config, Tally(), 0.0
        self._models, self._processes = models, processes

    def scores(self, groups: Sequence[Group]) -> list[list[Score]]:
        """The scores of the answers to each problem, in order.

        Raises:
            TooManyErrorsError: a reward failed on too many of the answers so far.
            ScorerError: a scoring process has ended.
            EndpointError: the judge's endpoint cannot be reached, or refuses the key or the model.
        """
        begin = time.monotonic()
        by_functions = self._by_functions(groups)
        by_models = {name: model(groups) for name, model in self._models.items()}
        found = []
        try:
            for number, (group, (parts, tally)) in enumerate(zip(groups, by_functions, strict=True)):
                parts |= {name: scores[number] for name, scores in by_models.items()}
                found.append(self._combined(group, parts, tally))
        except BrokenProcessPool as error:
            raise scorer_ended() from error
        if self.tally.samples >= ENOUGH_TO_TELL:
            check_errors(self.tally, self.config.max_error_share)
        self.seconds += time.monotonic() - begin
        return found

    def _by_functions(self, groups: Sequence[Group]) -> Iterator[tuple[dict[str, list[Score]], Tally]]:
        """The scores by name, and what failed; they are made while models score."""
        if self._processes is None:
            return iter([({}, Tally()) for _ in groups])
        try:
            waiting = [self._processes.submit(_score, self.config, group[0], list(group[1])) for group in groups]
        except BrokenProcessPool as error:
            raise scorer_ended() from error
        return (one.result() for one in waiting)

    def _combined(self, group: Group, parts: dict[str, list[Score]], tally: Tally) -> list[Score]:
        """One score for each answer. Of several rewards, only the combination is counted."""
        samples, combination = group[1], self.config.combination
        if combination is not None:
            grader = "+".join(self.config.graders.values())
            ordered = {name: parts[name] for name in self.config.graders}
            return list(combine_scores(samples, ordered, combination, grader, self.tally))
        ((name, scores),) = parts.items()
        if name in self._models:
            for sample, score in zip(samples, scores, strict=True):
                tally.count(sample, score)
        self.tally.add(tally)
        return scores


@contextmanager
def rewards(config: JudgedBy) -> Iterator[Rewards]:
    """The rewards, ready: processes have started and a reward model is loaded, before the program holds a policy."""
    functions = config.graders.keys() - config.models.keys()
    with ExitStack() as stack:
        pool = None
        if functions:
            pool = ProcessPoolExecutor(config.workers, initializer=_prepare, initargs=(config, functions))
            stack.callback(pool.shutdown, cancel_futures=True)
            pool.submit(int).result()
        models = {name: _model(program) for name, program in config.models.items()}
        yield Rewards(config, models, pool)


def _model(program: RewardScoreProgram | JudgeProgram) -> Model:
    if isinstance(program, JudgeProgram):
        ask = asking(program, [])
        return lambda groups: judged(groups, program, ask)[1]
    if torch.cuda.is_available():  # as training will choose it
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    model = RewardModel(program)

    def score(groups: Sequence[Group]) -> list[list[Score]]:
        rows = iter(model.scores([(problem, sample) for problem, samples in groups for sample in samples]))
        return [[next(rows) for _ in samples] for _, samples in groups]

    return score


def _prepare(config: JudgedBy, functions: set[str]) -> None:
    os.nice(10)  # engine and trainer have priority
    for name in functions:
        prepare_reward(load_reward(name), config.isolation)


def _score(config: JudgedBy, problem: Problem, samples: list[Sample]) -> tuple[dict[str, list[Score]], Tally]:
    tally = Tally()
    counted = Tally() if config.combination else tally
    functions = {name: grader for name, grader in config.graders.items() if name not in config.models}
    parts = {
        name: list(score_samples([problem], samples, load_reward(name), grader, counted))
        for name, grader in functions.items()
    }
    return parts, tally
