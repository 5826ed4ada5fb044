"""The bases that come with the package: they are what their records and the demos' settings say, and runs take them."""

import shutil
import tomllib
from pathlib import Path

import pytest

import tasks.policies.base
from flows.commands.config_file import read_config
from flows.grpo import GRPO
from flows.rest_em import RestEM
from flows.rlaif import RLAIF
from flows.rlhf import RLHF
from flows.self_rewarding import SelfRewarding
from flows.spin import Spin
from tasks.policies import shipped
from tasks.policies.base import base_policy, bootstrap_examples, bootstrap_stage
from tasks.policies.model_folder import folder_digest
from tasks.policies.shipped import POLICY, ShippedBase, ShippedBaseError, digest_of_examples, find_base, shipped_bases
from tasks.settings.loop import LoopConfig
from tasks.stage.run import Run

ROOT = Path(__file__).parents[3]
DEMOS: dict[str, type[LoopConfig]] = {
    "demo": RestEM,
    "nightly": RestEM,
    "spin-demo": Spin,
    "grpo-demo": GRPO,
    "rlhf-demo": RLHF,
    "self-rewarding-demo": SelfRewarding,
    "rlaif-demo": RLAIF,
}
LARGEST = 4 << 20  # bytes
shipped_base = pytest.mark.parametrize("base", shipped_bases(), ids=lambda base: base.name)


def settings_of(base: ShippedBase, **changes: object) -> LoopConfig:
    return RestEM.model_validate(read_config(ROOT / base.settings).settings | changes)


@pytest.mark.parametrize("demo", DEMOS)
def test_each_demo_begins_with_a_shipped_base(demo: str) -> None:
    config = DEMOS[demo].model_validate(read_config(ROOT / "configs" / f"{demo}.yaml").settings)
    assert find_base(bootstrap_stage(config, config.bootstrap, config.seed).fingerprint()) is not None


def test_nothing_else_is_there() -> None:
    assert {folder.name for folder in shipped.BASES.iterdir()} == {base.name for base in shipped_bases()}


@shipped_base
def test_a_base_is_what_the_settings_would_train(base: ShippedBase) -> None:
    """If this fails, settings, data or trainer were changed: `make bases` makes them anew."""
    config = settings_of(base)
    stage = bootstrap_stage(config, config.bootstrap, config.seed)
    assert (base.config, base.seed) == (stage.identity()["config"], stage.seed)
    assert base.fingerprint == stage.fingerprint()
    assert base.examples == digest_of_examples(bootstrap_examples(config.bootstrap, config.seed))


@shipped_base
def test_its_checkpoint_is_the_one_that_was_recorded_and_small(base: ShippedBase) -> None:
    folder = shipped.BASES / base.name / POLICY
    assert folder_digest(folder) == base.policy
    assert sum(file.stat().st_size for file in folder.iterdir()) < LARGEST


@shipped_base
def test_a_run_takes_a_copy_of_it_and_trains_nothing(
    base: ShippedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delattr(tasks.policies.base, "launch_program")
    config = settings_of(base, runs_dir=tmp_path / "runs")
    made = base_policy(Run(config.directory), config)
    assert made.artifact("policy").digest == base.policy
    assert made.finished.manifest.origin == {"base": base.name}
    for file in (made.path / "policy").iterdir():
        assert not file.is_symlink() and file.stat().st_nlink == 1 and file.stat().st_mode & 0o200
    planned = Run(tmp_path / "other", planning=True)
    base_policy(planned, config)
    assert [stage.stage.command for stage in planned.plan] == [""]


@shipped_base
def test_other_seeds_settings_and_templates_are_trained(base: ShippedBase) -> None:
    config = settings_of(base)
    fewer = config.bootstrap.model_copy(update={"demonstrations": config.bootstrap.demonstrations - 1})
    templated = settings_of(base, template="chatml")
    for stage in (
        bootstrap_stage(config, config.bootstrap, config.seed + 1),
        bootstrap_stage(config, fewer, config.seed),
        bootstrap_stage(templated, templated.bootstrap, config.seed),
    ):
        assert find_base(stage.fingerprint()) is None


def test_a_damaged_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = shipped_bases()[0]
    shutil.copytree(shipped.BASES, tmp_path / "bases")
    monkeypatch.setattr(shipped, "BASES", tmp_path / "bases")
    weights = tmp_path / "bases" / base.name / POLICY / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    config = settings_of(base)
    with pytest.raises(ShippedBaseError, match="is not the base that"):
        base_policy(Run(tmp_path / "run"), config)
    assert not (tmp_path / "run" / "base").exists()


def test_they_are_in_a_wheel() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["models"]
    models = shipped.BASES.parent
    packed = {file for pattern in told for file in models.glob(pattern)}
    assert packed == {file for file in shipped.BASES.rglob("*") if file.is_file()}
