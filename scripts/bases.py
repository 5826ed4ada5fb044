"""`make bases`: train the bases that come with the package, measure them, and write them to models/bases/.

Each is the result of bootstrapping with a demo's settings, by the project's own trainer, which takes minutes.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from data.arithmetic import shows_no_steps
from data.files import write_json
from flows.commands.config_file import read_config
from tasks.datasets.problems import prepare_problems
from tasks.policies.base import bootstrap_examples, bootstrap_stage, train_embedded
from tasks.policies.model_folder import model_files
from tasks.policies.shipped import BASES, POLICY, RECORD, MeasuredBase, ShippedBase, digest_of_examples
from tasks.rollouts.evaluate import evaluate, load_evaluation
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.environment import prepare
from tasks.stage.run import Run, open_run

ROOT = Path(__file__).parents[1]
SETTINGS = {"half-bare": "configs/demo.yaml"}


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTODIDACT_CACHE"] = str(Path(folder) / "cache")  # or a base trained earlier would be reused
        runs = Path(folder) / "runs"
        prepare(runs)
        for name in names or SETTINGS:
            make(name, runs)


def make(name: str, runs: Path) -> None:
    """Make one base again, replacing the existing one."""
    from flows.rest_em import RestEM  # after `prepare`, since it imports Prefect

    settings = read_config(ROOT / SETTINGS[name]).settings | {"runs_dir": runs, "run": name}
    config = RestEM.model_validate(settings)
    stage = bootstrap_stage(config, config.bootstrap, config.seed)
    with open_run(config.directory, {}, OnDrift.REFUSE, config.seed) as run:
        policy = train_embedded(run, config, config.bootstrap, config.seed).artifact("policy")
        validation = measure(run, config, policy)
    base = ShippedBase(
        name=name,
        settings=SETTINGS[name],
        fingerprint=stage.fingerprint(),
        config=stage.identity()["config"],
        seed=config.seed,
        examples=digest_of_examples(bootstrap_examples(config.bootstrap, config.seed)),
        policy=policy.require(),
        validation=validation,
    )
    shutil.rmtree(BASES / name, ignore_errors=True)
    (BASES / name / POLICY).mkdir(parents=True)
    for file in model_files(policy.path):
        shutil.copyfile(file, BASES / name / POLICY / file.name)
    write_json(BASES / name / RECORD, base.model_dump(mode="json"))
    print(f"{BASES / name}: {validation.accuracy} on validation, {validation.without_steps:.1%} without steps")


def measure(run: Run, config: LoopConfig, policy: Artifact) -> MeasuredBase:
    """Measure its greedy answers to the embedded validation problems, as a demo does."""
    sets = config.held_out(prepare_problems(run, config), "validation")
    found = load_evaluation(evaluate(run.place("iter-0"), policy, sets, config.evaluating, {}))
    assert found is not None
    answers = [outcome.greedy_text for outcome in found.outcomes["validation"]]
    return MeasuredBase(
        problems=len(answers),
        accuracy=found.metrics["validation"].greedy,
        without_steps=sum(map(shows_no_steps, answers)) / len(answers),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
