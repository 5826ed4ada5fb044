"""What an addition costs: a flow and a reward that is a model, in a package of their own, and no other edit."""

import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from data.rewards import RewardError
from data.rows import Score
from data.storage import read_rows
from deployments.generate import PREFECT_YAML, with_others
from flows.commands.cli import main
from flows.commands.flow_table import GROUP, all_flows, find_flow, own_flows
from flows.rest_em import RestEM, loop
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.rollouts.rewards import RewardConfig, check_reward
from tasks.stage.contract import OnDrift, Status
from tests.flows.conftest import small

FLOW = '''"""Best of n (no paper): a policy learns those of its own answers that a judge of lengths likes.

Nobody should use it.
"""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from models.config import SupervisedConfig
from tasks.datasets.problems import prepare_problems
from tasks.datasets.select import EXAMPLES, SelectConfig, select
from tasks.loop.loop import add_iteration, begin, conclude, run_loop
from tasks.policies.base import base_policy
from tasks.policies.train import train
from tasks.rollouts.generate import SAMPLES, generate
from tasks.rollouts.score import SCORES, score
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run


class BestOfN(LoopConfig):
    """Every setting of it."""

    train: Annotated[SupervisedConfig, Field(description="How the policy is trained.")] = SupervisedConfig()
    select: Annotated[SelectConfig, Field(description="Which answers are trained on.")] = SelectConfig()


@flow(name="best-of-n")
def best_of_n(config: BestOfN, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    return run_loop("Best of n", loop, config, on_drift)


def loop(run: Run, config: BestOfN) -> dict[str, Any]:
    problems, base = prepare_problems(run, config), base_policy(run, config)
    measuring, iterations = begin(run, config, problems, base)
    at, start, prompts = run.iteration(1), base.artifact("policy"), problems.artifact("train.parquet")
    sampled = generate(at, start, {SAMPLES: prompts}, config.sampling)
    scored = score(at, prompts, sampled.artifact(SAMPLES), config.judging)
    chosen = select(at, prompts, sampled.artifact(SAMPLES), scored.artifact(SCORES), config.select)
    policy = train(at, start, chosen.artifact(EXAMPLES), config.training)
    stages = {"generate": sampled, "score": scored, "select": chosen, "train": policy}
    return conclude(measuring, iterations, add_iteration(measuring, iterations, policy, stages), best=1)
'''

REWARD = """from typing import ClassVar

from data.rows import Sample, Score
from data.storage import parquet_files, read_rows, write_rows
from tasks.rollouts.model_reward import ModelReward


class Lengths(ModelReward):
    grader: ClassVar[str] = "lengths@1"

    longest: int

    def score(self, at, attempt, jobs, engine):
        for job in jobs:
            for shard in parquet_files(job.samples):
                rows = (
                    Score(1.0, "correct" if len(s.text) <= self.longest else "wrong", "", None, s.problem_id, s.index,
                          self.grader)
                    for s in read_rows(Sample, shard)
                )
                write_rows(Score, job.output / shard.name, rows)


class Unfinished(ModelReward):
    grader: ClassVar[str] = "unfinished@1"


class Nameless(ModelReward):
    def score(self, at, attempt, jobs, engine):
        pass


class Idle(Nameless):
    grader: ClassVar[str] = "idle@1"
"""
NAME = "toy_package.lengths:Lengths"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a flow and a reward, as pip would install it."""
    site = tmp_path / "site"
    (site / "toy_package").mkdir(parents=True)
    (site / "toy_package" / "__init__.py").touch()
    (site / "toy_package" / "best_of_n.py").write_text(FLOW)
    (site / "toy_package" / "lengths.py").write_text(REWARD)
    (site / "toy-1.0.dist-info").mkdir()
    (site / "toy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (site / "toy-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\nbest-of-n = toy_package.best_of_n\n")
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in [name for name in sys.modules if name.startswith("toy_package")]:
        del sys.modules[name]


def test_a_flow_of_another_package_is_found_everywhere(toy, tmp_path, stubs, monkeypatch, capsys):
    assert main(["--help"]) == 0
    assert "best-of-n    Best of n (no paper): a policy learns those of its own answers" in capsys.readouterr().out
    assert list(all_flows()) == [*own_flows(), "best-of-n"]

    deployments = yaml.safe_load(with_others(PREFECT_YAML.read_text()))["deployments"]
    (made,) = [d for d in deployments if d["entrypoint"] == "toy_package.best_of_n:best_of_n"]
    assert (made["name"], made["parameters"]["config"]) == ("own-all-settings", {"run": "own-best-of-n"})
    assert [d["name"] for d in deployments if d["entrypoint"] == "flows.commands.forms:best_of_n"] == ["own"]

    told = small(tmp_path) | {"run": "toy", "reward": {"name": NAME, "options": {NAME: {"longest": 1000}}}}
    told |= {"evaluate": told.get("evaluate", {}) | {"reward": {"name": "final_answer"}}}
    flow = find_flow("best-of-n")
    assert flow is not None
    loaded = flow.load()
    config = loaded.settings.model_validate(told)
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    assert main(["best-of-n", "--config", str(file), "--dry-run"]) == 0
    assert "iter-1/score" in capsys.readouterr().out

    run_loop("Best of n", loaded.loop, config, OnDrift.REFUSE)
    scores = list(read_rows(Score, config.directory / "iter-1" / "score" / "scores"))
    assert {(s.grader, s.verdict) for s in scores} == {("lengths@1", "correct")}
    assert {p.status for p in plan_loop(loaded.loop, config, OnDrift.REFUSE).plan} == {Status.REUSE}
    other = config.model_copy(
        update={"reward": RewardConfig.model_validate({"name": NAME, "options": {NAME: {"longest": 2}}})}
    )
    drifted = [p.stage.name for p in plan_loop(loaded.loop, other, OnDrift.REFUSE).plan if p.status is Status.DRIFT]
    assert drifted == ["iter-1/score"]

    assert main(["runs", "--runs-dir", str(config.runs_dir)]) == 0
    assert "Best of n" in (listed := capsys.readouterr().out) and "finished" in listed


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"name": NAME}, "longest: Field required"),
        ({"name": NAME, "options": {NAME: {"longest": 1, "shortest": 2}}}, "shortest: Extra inputs are not permitted"),
        ({"name": "toy_package.lengths:Nameless"}, "is a class, but not a usable ModelReward"),
        ({"name": "toy_package.lengths:Unfinished"}, "is a class, but not a usable ModelReward"),
        ({"name": "toy_package.best_of_n:BestOfN"}, "is a class, but not a usable ModelReward"),
    ],
)
def test_a_class_that_cannot_judge_is_refused(toy, reward, message):
    with pytest.raises(RewardError, match=message):
        check_reward(RewardConfig.model_validate(reward))


def test_options_of_another_reward_and_scores_that_were_not_given_are_said(toy, tmp_path, stubs):
    with pytest.raises(ValidationError, match=r"options names toy_package\.lengths:Length, but the rewards are"):
        RewardConfig.model_validate({"name": NAME, "options": {"toy_package.lengths:Length": {"longest": 1}}})
    told = small(tmp_path) | {"reward": {"name": "toy_package.lengths:Idle"}, "iterations": 1}
    config = RestEM.model_validate(told | {"evaluate": {"reward": {"name": "final_answer"}}})
    with pytest.raises(RewardError, match=r"toy_package\.lengths:Idle did not write the scores of the 80 samples"):
        run_loop("ReST-EM", loop, config, OnDrift.REFUSE)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "should be in the module toy_package.best_of_n, which does not exist"),
        ("def (", "cannot be loaded: importing toy_package.best_of_n raised SyntaxError"),
        (
            '"""It fails."""\nraise OSError("no")',
            "cannot be loaded: importing toy_package.best_of_n raised OSError: no",
        ),
    ],
)
def test_a_flow_of_another_package_that_is_broken_says_so_and_leaves_the_others_alone(toy, capsys, content, says):
    file = toy / "toy_package" / "best_of_n.py"
    file.unlink() if content is None else file.write_text(content)
    assert main(["best-of-n", "--dry-run"]) == 2
    assert says in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "learns gold answers" in capsys.readouterr().out
    deployments = yaml.safe_load(with_others(PREFECT_YAML.read_text()))["deployments"]
    assert not [d for d in deployments if "toy" in d["entrypoint"]]
    assert says in capsys.readouterr().err


def test_a_module_that_is_no_flow_says_what_it_lacks(toy, capsys):
    (toy / "toy_package" / "best_of_n.py").write_text('"""Nothing."""\n')
    assert main(["best-of-n", "--dry-run"]) == 2
    assert "toy_package.best_of_n is not a flow: it needs a Prefect flow best_of_n" in capsys.readouterr().err
