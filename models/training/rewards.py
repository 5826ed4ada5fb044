"""Rewards inside a training program: functions in processes beside it, models here, a judge at its endpoint."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager

import torch

from data.rewards import load_reward, prepare_reward
from data.rows import Problem, Rollout, Sample, Score
from data.scoring import Tally, combine_scores, score_samples
from models.asking.judge import Group, asking, judged
from models.config import DirectScoreProgram, JudgeProgram, RewardScoreProgram
from models.on_policy import JudgedBy
from models.rounds import scorer_ended
from models.training.direct_score import DirectJudge
from models.training.reward_score import Judge as RewardModel

Model = Callable[[Sequence[Group]], list[list[Score]]]


class Rewards:
    """Scores groups of answers by the program's rewards.

    Attributes:
        tally: counts of what was scored here, and of what failed.
        seconds: that it took.
        known: scores of an earlier attempt at the steps to come, by problem and index. They hold for the same answers:
            a judge that is asked again may reply differently.
    """

    def __init__(self, config: JudgedBy, models: dict[str, Model], processes: Executor | None) -> None:
        self.config, self.tally, self.seconds = config, Tally(), 0.0
        self.known: dict[tuple[str, int], Rollout] = {}
        self._models, self._processes = models, processes

    def scores(self, groups: Sequence[Group]) -> list[list[Score]]:
        """The scores of the answers to each problem, in order.

        Raises:
            ScorerError: a scoring process has ended.
            EndpointError: the judge's endpoint cannot be reached, or refuses the key or the model.
        """
        begin = time.monotonic()
        known = [self._known(samples) for _, samples in groups]
        made = iter(self._made([group for group, scores in zip(groups, known, strict=True) if scores is None]))
        found = [next(made) if scores is None else scores for scores in known]
        for (_, samples), scores in zip(groups, found, strict=True):
            for sample, score in zip(samples, scores, strict=True):
                self.tally.count(sample, score)
        self.seconds += time.monotonic() - begin
        return found

    def _known(self, samples: Sequence[Sample]) -> list[Score] | None:
        """The scores that the answers to a problem got before, if they all got a value."""
        rows = [self.known.get((sample.problem_id, sample.index)) for sample in samples]
        there = [row for row, sample in zip(rows, samples, strict=True) if row and row.token_ids == sample.token_ids]
        if len(there) < len(samples) or any(row.value is None for row in there):
            return None
        return [row.score for row in there]

    def _made(self, groups: Sequence[Group]) -> list[list[Score]]:
        by_functions = self._by_functions(groups)
        by_models = {name: model(groups) for name, model in self._models.items()} if groups else {}
        found = []
        try:
            for number, (group, parts) in enumerate(zip(groups, by_functions, strict=True)):
                parts |= {name: scores[number] for name, scores in by_models.items()}
                found.append(self._combined(group, parts))
        except BrokenProcessPool as error:
            raise scorer_ended() from error
        return found

    def _by_functions(self, groups: Sequence[Group]) -> Iterator[dict[str, list[Score]]]:
        """The scores of each group by name, which are made while models score."""
        if self._processes is None:
            return iter([{} for _ in groups])
        try:
            waiting = [self._processes.submit(_score, self.config, group[0], list(group[1])) for group in groups]
        except BrokenProcessPool as error:
            raise scorer_ended() from error
        return (one.result() for one in waiting)

    def _combined(self, group: Group, parts: dict[str, list[Score]]) -> list[Score]:
        """One score for each answer, from all rewards in the order of the settings."""
        if self.config.combination is None:
            ((_, scores),) = parts.items()
            return scores
        grader = "+".join(self.config.graders.values())
        ordered = {name: parts[name] for name in self.config.graders}
        return list(combine_scores(group[1], ordered, self.config.combination, grader, Tally()))


@contextmanager
def rewards(config: JudgedBy) -> Iterator[Rewards]:
    """The rewards, ready: processes have started and a reward model is loaded, before the program holds a policy."""
    functions = config.graders.keys() - config.models.keys()
    with ExitStack() as stack:
        pool = None
        if functions:
            pool = ProcessPoolExecutor(config.workers, initializer=_prepare, initargs=(config, functions))
            stack.callback(pool.shutdown, cancel_futures=True)
            try:
                pool.submit(int).result()
            except BrokenProcessPool as error:
                raise scorer_ended() from error
        models = {name: _model(program) for name, program in config.models.items()}
        yield Rewards(config, models, pool)


def _model(program: RewardScoreProgram | DirectScoreProgram | JudgeProgram) -> Model:
    if isinstance(program, JudgeProgram):
        ask = asking(program, [])
        return lambda groups: judged(groups, program, ask)[1]
    if torch.cuda.is_available():  # as training will choose it
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    model = DirectJudge(program) if isinstance(program, DirectScoreProgram) else RewardModel(program)

    def score(groups: Sequence[Group]) -> list[list[Score]]:
        rows = iter(model.scores([(problem, sample) for problem, samples in groups for sample in samples]))
        return [[next(rows) for _ in samples] for _, samples in groups]

    return score


def _prepare(config: JudgedBy, functions: set[str]) -> None:
    os.nice(10)  # engine and trainer have priority
    for name in functions:
        prepare_reward(load_reward(name), config.isolation)


def _score(config: JudgedBy, problem: Problem, samples: list[Sample]) -> dict[str, list[Score]]:
    """The scores by functions, by name."""
    return {
        name: list(score_samples([problem], samples, load_reward(name), grader, Tally()))
        for name, grader in config.graders.items()
        if name not in config.models
    }
