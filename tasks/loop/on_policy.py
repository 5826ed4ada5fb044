"""The loop of flows whose policy learns from its own fresh answers: an iteration is some steps in one program."""

from typing import Any

from tasks.loop.loop import add_iteration, begin, conclude
from tasks.rollouts.learn import Learning, end_by_kl, learn
from tasks.settings.on_policy import OnPolicyLoopConfig
from tasks.stage.run import Result, Run


def optimize(run: Run, config: OnPolicyLoopConfig, problems: Result, base: Result, how: Learning) -> dict[str, Any]:
    """Learn and measure, iteration after iteration. Has no effect when `run` is only planning.

    Returns:
        The run's summary.
    """
    measuring, iterations = begin(run, config, problems, base, config.proxy(how.scorers, problems), how.before)
    policy, reason = base, None
    for number in range(1, config.iterations + 1):
        policy = learn(run.iteration(number), number, policy, problems.artifact("train.parquet"), how)
        reason = add_iteration(measuring, iterations, policy, {"train": policy}) or end_by_kl(policy, config.train)
        if reason:
            break
    return conclude(measuring, iterations, reason)
