"""What all loops share: the start (plan, checks, lock, tracking), the iterations, the end (best, final test).

The loop itself is a `for` statement in the algorithm's own file under flows/, or in on_policy.py.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import write_json
from data.measures import DISCRIMINATOR, PROXY, difference, shared
from data.stopping import all_done, best_iteration, from_the_base, game_is_over, overoptimized, stop_reason
from data.wording import counted
from tasks.loop.approval import ask, decided_best, require_deployment
from tasks.loop.gate import measure_gate
from tasks.loop.keeping import free_decided
from tasks.loop.measuring import Measuring, measuring
from tasks.loop.preflight import Loop, check
from tasks.policies.best import publish_best
from tasks.policies.reference import PairsMeasured
from tasks.report.wording import too_small
from tasks.rollouts.judge_agreement import PolicyJudge
from tasks.rollouts.measured import load_measured
from tasks.rollouts.proxy import Proxy
from tasks.settings.loop import LoopConfig
from tasks.settings.run import RunConfig
from tasks.stage.contract import OnDrift
from tasks.stage.iteration import Iteration
from tasks.stage.logs import keep_logs_plain, run_logger
from tasks.stage.run import PLAN, SUMMARY, Result, Run, open_run
from tasks.tracking.champion import Gate, remember_champion, resolve_settings, run_name
from tasks.tracking.recorder import Ending, Recorder, answers_shown, iteration_rows, record_end, record_iteration

NO_PAIRS: Mapping[str, PairsMeasured] = {}
NO_STAGES: Mapping[str, Result] = {}


def run_loop(algorithm: str, loop: Loop, config: RunConfig, on_drift: OnDrift) -> dict[str, Any]:
    """Check, lock, track and run a loop or another kind of run. Bad input is refused before anything heavy starts.

    Returns:
        The summary, also kept as `summary.json` in the run directory.
    """
    keep_logs_plain()
    config = resolve_settings(config)
    if isinstance(config, LoopConfig) and config.approve:
        require_deployment()
    planned = check(loop, config, on_drift)
    run_logger().info("%s, run %s: %s", algorithm, config.run, counted(len(planned.plan), "stage"))
    settings = {"algorithm": algorithm, "decided_by": planned.decided_by} | config.model_dump(mode="json")
    with open_run(config.directory, settings, on_drift, config.seed) as run, Recorder(run, algorithm, config):
        remember_champion(config)
        write_json(config.directory / PLAN, [stage.stage.name for stage in planned.plan])
        run.model_code, run.remake = config.model_code, planned.remake
        run.parameters, run.row_tokens = planned.parameters, planned.row_tokens
        run.virtual_tokens = planned.virtual_tokens
        run.to_come = {stage.stage.name: stage.stage for stage in planned.plan}
        return loop(run, config)


def flow_run_name() -> str:
    """Return the name of a flow run in Prefect: the run's name, with its date."""
    from prefect.runtime import flow_run

    config = flow_run.parameters["config"]
    told = config if isinstance(config, dict) else config.model_dump()
    return run_name(Path(told["runs_dir"]), told["run"])


def begin(
    run: Run,
    config: LoopConfig,
    problems: Result | None,
    base: Result,
    beside: Proxy | PolicyJudge | None = None,
    stages: Mapping[str, Result] = NO_STAGES,
) -> tuple[Measuring, list[Iteration]]:
    """Return how policies are measured, and iteration 0: the base policy, measured on validation.

    Args:
        beside: what else is measured: the reward that is optimized, if another one measures, or the policy as judge.
        stages: what was done before the first iteration and is shown with the base, by kind.
    """
    proxy = beside if isinstance(beside, Proxy) else None
    judge = beside if isinstance(beside, PolicyJudge) else None
    held_out = measuring(run, config, problems, proxy, judge)
    run.decided_by = held_out.decides.name if held_out.decides else None
    iterations: list[Iteration] = []
    add_iteration(held_out, iterations, base, stages)
    return held_out, iterations


def add_iteration(
    measuring: Measuring,
    iterations: list[Iteration],
    policy: Result,
    stages: Mapping[str, Result],
    pairs: Mapping[str, PairsMeasured] = NO_PAIRS,
) -> str | None:
    """Measure an iteration's policy on validation, against the base and the previous iteration, and record it.

    Args:
        pairs: held-out pairs that it is measured on.

    Returns:
        Why the loop must end here, or None.
    """
    run, config, number = measuring.run, measuring.config, len(iterations)
    against = {"base": iterations[0].stages, "previous": iterations[-1].stages} if iterations else {}
    artifact = policy.artifact("policy")
    at = run.place(f"iter-{number}")
    measured = measuring.measure(at, artifact, ("validation",), against, pairs)
    first = iterations[0].stages if iterations else None
    measured |= measuring.optimized(at, policy, measured, first) | measuring.judging(at, artifact, first)
    iterations.append(Iteration(number, policy, {**stages, **measured}))
    record_iteration(run, iterations, run.decided_by)
    if number and config.approve and not run.planning:
        shown = answers_shown(run, iterations[-1])
        decision = ask(run.directory, number, iteration_rows(iterations, run.decided_by), shown)
        if decision.decision != "go on":
            return f"a reviewer decided to stop after iteration {number}"
    free_decided(run, config, iterations, _best(measuring, iterations))
    return _stop_reason(measuring, iterations)


def conclude(
    measuring: Measuring,
    iterations: list[Iteration],
    reason: str | None,
    best: int | None = None,
    pairs: Mapping[str, PairsMeasured] = NO_PAIRS,
) -> dict[str, Any]:
    """Publish the best iteration; measure base and best on unseen sets; write report and summary.

    The best iteration is the given one, or the one a reviewer chose, or the best on validation by the deciding measure,
    or the last if no measure decides.

    Args:
        pairs: held-out pairs that no decision has used.
    """
    run, config = measuring.run, measuring.config
    best = decided_best(run.directory) if best is None else best
    known = best is not None or not measuring.decides or len(_values(measuring, iterations)) == len(iterations)
    best = _best(measuring, iterations) if best is None else best
    policy = iterations[best].policy.artifact("policy")
    if not known:  # only while planning: which iteration is the best shows once all are measured
        policy = replace(policy, digest=None)
    publish_best(run, policy, best)
    sets = ("test", "transfer")
    base = measuring.measure(run.place("final/base"), iterations[0].policy.artifact("policy"), sets, {}, {})
    final = measuring.measure(run.place("final/best"), policy, sets, {"base": base}, pairs)
    reason = reason or all_done(len(iterations) - 1)

    def gate() -> Gate | None:
        return measure_gate(measuring, iterations, best, (base, final))

    ending = Ending(best, reason, (base, final), measuring.test_set(pairs), gate)
    summary = record_end(run, config, measuring.problems, iterations, ending)
    if summary:
        free_decided(run, config, iterations, best, over=True)  # before the summary: a run with one is not resumed
        write_json(run.directory / SUMMARY, summary)
    return summary


def _best(measuring: Measuring, iterations: list[Iteration]) -> int:
    """The best iteration so far: the latest if no measure decides or not all were measured."""
    values = _values(measuring, iterations)
    if measuring.decides and len(values) == len(iterations):
        return best_iteration(values, measuring.decides)
    return len(iterations) - 1


def _stop_reason(measuring: Measuring, iterations: list[Iteration]) -> str | None:
    rule, number = measuring.config.stop, len(iterations) - 1
    if rule.rule == "discriminator":
        played = iterations[-1].stages["likelihood"]
        if number == 0 or played.finished is None:
            return None
        found = load_measured([played]).get("validation", DISCRIMINATOR.name)
        if found and too_small(DISCRIMINATOR, found.rows, found.value):
            return None
        return game_is_over(number, found.value if found else None)
    if rule.rule == "overoptimized":
        return _overoptimized(measuring, iterations)
    if measuring.decides is None:
        return None
    return stop_reason(rule.rule, rule.patience, _values(measuring, iterations), measuring.decides)


def _overoptimized(measuring: Measuring, iterations: list[Iteration]) -> str | None:
    """Compare the latest iteration with the one that is best by gold, in gold and in what is optimized."""
    number, best, gold = len(iterations) - 1, _best(measuring, iterations), measuring.decides
    if gold is None or best == number or any(iterations[i].stages["proxy"].finished is None for i in (best, -1)):
        return None
    latest, earlier = (load_measured(iterations[which].stages.values()) for which in (-1, best))
    both = (shared(*(of.rows("validation", one.name) for of in (latest, earlier))) for one in (PROXY, gold))
    proxy_change, gold_change = (difference(*rows, measuring.config.seed) for rows in both)
    return overoptimized(number, best, proxy_change, gold_change, gold)


def _values(measuring: Measuring, iterations: list[Iteration]) -> list[float]:
    """The deciding measure of the base and every iteration on validation; empty while planning."""
    measure = measuring.decides
    if measure is None:
        return []
    found = [load_measured(iteration.stages.values()).get("validation", measure.name) for iteration in iterations]
    return from_the_base([estimated.value.value if estimated else None for estimated in found], measure)
