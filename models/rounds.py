"""Which answers are still to be drawn: all at once, or in rounds until a problem has enough good ones.

The first round has as many answers as are enough. Between rounds, a problem's answers are scored, in processes beside
the engine. Each answer keeps its number and with it its seed, and selection takes the first good ones by number: what
it selects is the same as with all answers (the idea of DART-Math, arXiv 2407.13690, within a fixed budget).
"""

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue

from data.errors import RunFailedError
from data.rewards import load_reward, prepare_reward
from data.rows import Problem, Sample, Score
from data.scoring import Tally, check_errors, score_samples
from data.selection import refusal, worded
from data.storage import write_rows
from models.config import UntilKept
from models.engine import Completion, Request
from models.engine.meter import Meter
from models.score import keep_scores
from models.shards import Shard, decided_by, engine_request, to_samples

MOST_JUDGED = 256  # problems whose verdicts are waited for while others are begun
ENOUGH_TO_TELL = 1000  # answers, of which a share of errors tells something


class ScorerError(RunFailedError):
    """Scoring between rounds cannot go on."""


@dataclass
class Drawn:
    """The answers to one problem so far, the scores of all but the last round, and the good and distinct texts."""

    shard: Shard
    place: int
    samples: list[Sample] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    kept: set[str] = field(default_factory=set)

    @property
    def problem(self) -> Problem:
        return self.shard.problems[self.place]

    @property
    def next_round(self) -> int:
        """How many more answers to draw; 0: there are enough, or there can be no more."""
        until, drawn, most = self.shard.job.until, len(self.samples), self.shard.job.sampling.samples
        if until is None or drawn == most:
            return most - drawn
        missing = until.kept - len(self.kept)
        # A quarter more than there are, or the last rounds would be many, small, and one after another.
        return min(max(missing, drawn // 4), most - drawn) if missing > 0 else 0


class Rounds:
    """The requests of missing shards. Each shard is written once its last problem has enough answers.

    Args:
        prompts: token ids by problem.
        stop: ids of tokens that end an answer.
        policy: digest of the policy that answers.
        scorers: result of `scorers`.
    """

    def __init__(
        self,
        shards: list[Shard],
        prompts: Mapping[str, list[int]],
        stop: list[int],
        policy: str,
        scorers: Executor | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._shards, self._prompts, self._stop, self._policy = shards, prompts, stop, policy
        self._scorers, self._meter = scorers, meter
        self._asked: dict[int, Drawn] = {}
        self._again: deque[Drawn] = deque()
        self._judging = 0
        self._verdicts: SimpleQueue[tuple[Drawn, Future[tuple[list[Score], Tally]]]] = SimpleQueue()
        self._tally = Tally()
        self._complete: dict[Path, dict[int, Drawn]] = defaultdict(dict)

    def requests(self) -> Iterator[Request | None]:
        """The next request each time, those of problems that are begun first; see `Engine.stream`."""
        number = 0
        fresh = (Drawn(shard, place) for shard in self._shards for place in range(len(shard.problems)))
        while True:
            self._take_verdicts()
            drawn = self._again.popleft() if self._again else None
            if drawn is None and self._judging < MOST_JUDGED:  # or answers would pile up before slow verdicts
                drawn = next(fresh, None)
            if drawn is not None:
                self._asked[number] = drawn
                number += 1
                yield self._request(drawn)
            elif self._asked and self._scorers:
                yield None
            elif self._judging:
                self._take_verdict(*self._verdicts.get())
            else:
                return

    def take(self, number: int, answers: Iterable[Completion]) -> None:
        """Accept the answers to a request."""
        drawn = self._asked.pop(number)
        begin, until = len(drawn.samples), drawn.shard.job.until
        drawn.samples += to_samples(drawn.shard.job, drawn.problem, answers, self._policy, begin)
        if until is None:
            self._finish(drawn)
        else:
            assert self._scorers is not None
            self._judging += 1
            try:
                judged = self._scorers.submit(_judge, until, drawn.problem, drawn.samples[begin:])
            except BrokenProcessPool as error:
                raise scorer_ended() from error
            judged.add_done_callback(lambda done: self._verdicts.put((drawn, done)))

    def _request(self, drawn: Drawn) -> Request:
        job, problem = drawn.shard.job, drawn.problem.id
        request = engine_request(job, problem, self._prompts[problem], self._stop, begin=len(drawn.samples))
        # Between rounds, the order of requests depends on how fast verdicts come.
        together = str(drawn.shard.path) if job.until is None else f"{problem}/{len(drawn.samples)}"
        return replace(request, samples=drawn.next_round, together=together)

    def _take_verdicts(self) -> None:
        with suppress(Empty):
            while True:
                self._take_verdict(*self._verdicts.get_nowait())

    def _take_verdict(self, drawn: Drawn, judged: Future[tuple[list[Score], Tally]]) -> None:
        """Accept the scores of a problem's last round.

        Raises:
            ScorerError: a scoring process has ended.
            TooManyErrorsError: the reward failed too often.
        """
        try:
            scores, tally = judged.result()
        except BrokenProcessPool as error:
            raise scorer_ended() from error
        self._judging -= 1
        self._tally.add(tally)
        until = drawn.shard.job.until
        assert until is not None
        if self._tally.samples >= ENOUGH_TO_TELL:
            check_errors(self._tally, until.max_error_share)
        for sample, score in zip(drawn.samples[len(drawn.scores) :], scores, strict=True):
            if refusal(sample, score, until.min_reward) is None:
                drawn.kept.add(worded(sample.text))
        drawn.scores += scores
        drawn.tally.add(tally)
        if drawn.next_round:
            self._again.append(drawn)
        else:
            self._finish(drawn)

    def _finish(self, drawn: Drawn) -> None:
        """Note that a problem has its answers; write its shard if it was the last."""
        shard, complete = drawn.shard, self._complete[drawn.shard.path]
        complete[drawn.place] = drawn
        if self._meter:
            self._meter.spare(shard.job.sampling.samples - len(drawn.samples))
        if len(complete) < len(shard.problems):
            return
        in_order = [complete[place] for place in range(len(shard.problems))]
        write_rows(Sample, shard.path, (sample for one in in_order for sample in one.samples))
        if shard.job.until:
            tally = Tally()
            for one in in_order:
                tally.add(one.tally)
            keep_scores(decided_by(shard), (score for one in in_order for score in one.scores), tally)
        del self._complete[shard.path]


@contextmanager
def scorers(shards: list[Shard]) -> Iterator[Executor | None]:
    """Processes that score between rounds. None if no shard needs them.

    They start at once: started beside an engine, they would have a copy of its memory.
    """
    until = next((shard.job.until for shard in shards if shard.job.until), None)
    if until is None:
        yield None
        return
    until.scores.mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(until.workers, initializer=_prepare, initargs=(until,))
    try:
        wait([pool.submit(int)])
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def scorer_ended() -> ScorerError:
    """The error when a process that scores is gone."""
    return ScorerError(
        "A process that scored answers has ended, perhaps killed for its memory.",
        what_next="Run the same command again: finished shards and checkpoints are kept. If memory is short, lower "
        "reward.workers.",
    )


def _prepare(until: UntilKept) -> None:
    os.nice(10)  # the engine has priority
    prepare_reward(load_reward(until.reward), until.isolation)


def _judge(until: UntilKept, problem: Problem, samples: list[Sample]) -> tuple[list[Score], Tally]:
    tally = Tally()
    return list(score_samples([problem], samples, load_reward(until.reward), until.grader, tally)), tally
