"""ReST-EM (arXiv 2312.06585): a policy learns from those of its own answers that are correct.

E-step: sample answers from the current policy, keep the correct and distinct ones, a few per problem.
M-step: fine-tune the base model on them by reward-weighted negative log-likelihood. Repeat while validation improves.
"""

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from data.stopping import stop_reason
from models.config import EngineConfig, LaunchConfig, SamplingConfig, TrainConfig
from tasks.contract import OnDrift
from tasks.evaluate import EvaluateConfig, evaluate
from tasks.loop import Iteration, LoopConfig, conclude, run_loop, validation_accuracies
from tasks.policy import base_policy
from tasks.problems import prepare_problems
from tasks.record import record_iteration
from tasks.run import Run
from tasks.sample import generate
from tasks.score import RewardConfig, SelectConfig, score, select
from tasks.train import train


class RestEM(LoopConfig):
    """Every setting of a ReST-EM run. Defaults are the paper's; where it is silent, those of VinePPO's re-run."""

    iterations: Annotated[int, Field(ge=1, description="Most iterations of E-step and M-step.")] = 3
    init: Annotated[
        Literal["base", "last"], Field(description="What each M-step starts from: the base model, or the last policy.")
    ] = "base"
    generate: Annotated[SamplingConfig, Field(description="How answers are sampled.")] = SamplingConfig()
    reward: Annotated[RewardConfig, Field(description="What judges them.")] = RewardConfig()
    select: Annotated[SelectConfig, Field(description="Which are trained on.")] = SelectConfig()
    train: Annotated[TrainConfig, Field(description="How the policy is trained on them.")] = TrainConfig()
    evaluate: Annotated[EvaluateConfig, Field(description="How policies are measured.")] = EvaluateConfig()
    engine: Annotated[EngineConfig, Field(description="How vLLM runs.")] = EngineConfig()
    launch: Annotated[LaunchConfig, Field(description="How training runs.")] = LaunchConfig()


@flow(name="rest-em", description=__doc__, flow_run_name="{config.run}", persist_result=False, validate_parameters=True)
def rest_em(config: RestEM, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run ReST-EM, or go on where an earlier start of the same run stopped."""
    return run_loop("ReST-EM", loop, config, on_drift)


def loop(run: Run, config: RestEM) -> dict[str, Any]:
    """The algorithm. Walked without effect when `run` is only planning."""
    problems = prepare_problems(run, config, config.seed)
    base = base_policy(run, config, config.bootstrap, config.seed)
    train_set, expected = problems.artifact("train.parquet"), config.expected_problems

    def measure(number: int, policy: Any, against: dict[str, Any]) -> Any:
        sets = config.held_out(problems, "validation")
        settings = config.evaluate, config.generate, config.reward, config.engine, config.seed
        return evaluate(run, f"iter-{number}/evaluate", policy.artifact("policy"), sets, *settings, against)

    policy = base
    iterations = [Iteration(0, base, {"evaluate": measure(0, base, {})})]
    record_iteration(run, iterations)
    for number in range(1, config.iterations + 1):
        name, seed = f"iter-{number}", config.seed + number
        samples = generate(
            run,
            f"{name}/generate",
            policy.artifact("policy"),
            train_set,
            config.generate,
            config.engine,
            seed,
            expected["train"],
        )
        answers = samples.artifact("samples")
        scores = score(run, f"{name}/score", train_set, answers, config.reward)
        chosen = select(run, f"{name}/select", train_set, answers, scores.artifact("scores.parquet"), config.select)
        start = base if config.init == "base" else policy
        policy = train(
            run,
            f"{name}/train",
            start.artifact("policy"),
            chosen.artifact("examples.parquet"),
            config.train,
            config.launch,
            seed,
            expected["train"] * min(config.select.max_per_problem, config.generate.samples),
        )
        against = {"base": iterations[0].stages["evaluate"], "previous": iterations[-1].stages["evaluate"]}
        stages = {"generate": samples, "score": scores, "select": chosen, "train": policy}
        iterations.append(Iteration(number, policy, stages | {"evaluate": measure(number, policy, against)}))
        record_iteration(run, iterations)
        if reason := stop_reason(config.stop.rule, config.stop.patience, validation_accuracies(iterations)):
            break
    else:
        reason = f"all {config.iterations} iterations were run"
    return conclude(run, config, problems, iterations, reason)
