"""Names that hold the date, the gate to the champion's place, and moves that can be taken back."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from pydantic import ValidationError

from data.measures import ACCURACY, LOSS, PAIR_ACCURACY, WIN_RATE, Measure
from data.metrics import Interval
from flows.rest_em import RestEM
from models.loading import ModelError
from tasks.policies.model_folder import same_tokenizer
from tasks.tracking.champion import (
    Gate,
    apply_gate,
    gates_decided,
    refusal,
    remember_champion,
    resolve_settings,
    run_name,
)
from tasks.tracking.registry import Registry, RegistryError, Version

NIGHT = datetime(2026, 3, 2, 2, 0)
MODEL = "autodidact-nightly"
BETTER, UNSURE, WORSE = (Interval(value=v, low=v - 0.03, high=v + 0.03) for v in (0.05, 0.01, -0.05))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database, which takes seconds to make: each test gets a copy."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def runs(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(database.read_bytes())
    return tmp_path / "runs"


@pytest.fixture
def registry(runs: Path) -> Registry:
    return Registry(MlflowClient(f"sqlite:///{runs / 'mlflow.db'}"))


def add_version(registry: Registry, folder: Path, digest: str, model: str = MODEL, there: bool = True) -> Version:
    folder.mkdir(parents=True)
    if there:
        (folder / "config.json").write_text("{}")
    if not registry.versions(model):
        registry.client.create_registered_model(model)
    tags = {"path": str(folder), "digest": digest}
    made = registry.client.create_model_version(model, source=folder.as_uri(), tags=tags)
    return registry.version(model, str(made.version))


def night(runs: Path, name: str, finished: bool) -> None:
    (runs / name).mkdir()
    (runs / name / "config.json").write_text("{}")
    if finished:
        (runs / name / "summary.json").write_text("{}")


def test_a_name_without_a_date_stays():
    assert run_name(Path("nowhere"), "demo") == "demo"


def test_a_name_with_a_date_is_named_by_it(tmp_path: Path):
    assert run_name(tmp_path / "not-there", "nightly-%Y-%m-%d", NIGHT) == "nightly-2026-03-02"


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ({"n-2026-03-01": True}, "n-2026-03-02"),
        ({"n-2026-03-01": False}, "n-2026-03-01"),
        ({"n-2026-02-28": False, "n-2026-03-01": True}, "n-2026-03-02"),
        ({"n-2026-02-28": True, "n-2026-03-01": False}, "n-2026-03-01"),
        ({"n-2026-03-02": True}, "n-2026-03-02"),
        ({"other-2026-03-01": False, "n-latest": False}, "n-2026-03-02"),
    ],
)
def test_the_latest_night_goes_on_if_it_is_unfinished(tmp_path: Path, nights: dict[str, bool], expected: str):
    for name, finished in nights.items():
        night(tmp_path, name, finished)
    assert run_name(tmp_path, "n-%Y-%m-%d", NIGHT) == expected


@pytest.mark.parametrize("name", ["%", "nightly-%x", "-%Y", "a b", "../up", "%Y%"])
def test_other_names_are_refused(name: str):
    with pytest.raises(ValidationError, match="String should match pattern"):
        RestEM(run=name)


@pytest.mark.parametrize(
    ("run", "registry", "expected"),
    [
        ("demo", None, "autodidact-demo"),
        ("nightly-%Y-%m-%d", None, "autodidact-nightly"),
        ("%Y-nightly-%m", None, "autodidact-nightly"),
        ("%Y%m%d", None, "autodidact-dated"),
        ("nightly-%Y-%m-%d", "mine", "mine"),
    ],
)
def test_all_nights_share_a_registered_model(tmp_path: Path, run: str, registry: str | None, expected: str):
    settled = resolve_settings(RestEM(run=run, registry=registry, runs_dir=tmp_path))
    assert settled.registry == expected
    assert "%" not in settled.run
    assert resolve_settings(settled) == settled


def test_without_a_champion_the_model_given_is_the_base(runs: Path):
    config = RestEM(run="n", init="champion", registry=MODEL, runs_dir=runs, model="some/model")
    assert resolve_settings(config).model == "some/model"


def test_the_champion_is_the_base_and_a_resumed_run_begins_with_the_same(
    runs: Path, registry: Registry, tmp_path: Path
):
    first = add_version(registry, tmp_path / "first", "aaa")
    registry.crown(first, "gate")
    config = RestEM(run="n", init="champion", registry=MODEL, runs_dir=runs, template=Path("own.jinja"))
    settled = resolve_settings(config)
    assert (settled.model, settled.template) == (str(tmp_path / "first"), None)
    (runs / "n").mkdir()
    remember_champion(settled)
    registry.crown(add_version(registry, tmp_path / "second", "bbb"), "gate")
    assert resolve_settings(config).model == str(tmp_path / "first")
    assert resolve_settings(config.model_copy(update={"run": "m"})).model == str(tmp_path / "second")


def test_a_champion_whose_checkpoint_is_gone_is_named(runs: Path, registry: Registry, tmp_path: Path):
    registry.crown(add_version(registry, tmp_path / "first", "aaa", there=False), "gate")
    with pytest.raises(ModelError, match=rf"version 1 of {MODEL}, is missing from .*first. Make another"):
        resolve_settings(RestEM(run="n", init="champion", registry=MODEL, runs_dir=runs))


@pytest.mark.parametrize(
    ("difference", "champion", "words"),
    [
        (
            BETTER,
            "2",
            "version 2 of autodidact-nightly is the new champion: against version 1, 5.0% [2.0%, 8.0%] on 500",
        ),
        (UNSURE, "1", "version 2 of autodidact-nightly is a challenger, not clearly better: against version 1, 1.0%"),
        (WORSE, "1", "version 2 of autodidact-nightly is a challenger"),
        (None, "1", "against version 1, its checkpoint is gone"),
    ],
)
def test_the_champion_moves_only_if_the_interval_excludes_zero(
    registry: Registry, tmp_path: Path, difference: Interval | None, champion: str, words: str
):
    old = add_version(registry, tmp_path / "old", "aaa")
    registry.crown(old, "gate")
    new = add_version(registry, tmp_path / "new", "bbb")
    assert words in apply_gate(registry, new, Gate(old, difference, 500))
    now = registry.champion(MODEL)
    assert now is not None
    assert now.number == champion
    aliases = registry.client.get_registered_model(MODEL).aliases
    assert ("challenger" in aliases) == (champion == "1")
    tags = registry.version(MODEL, "2").tags
    assert tags["gate_passed"] == ("yes" if champion == "2" else "no")
    assert tags["gate_against"] == "version 1"
    assert apply_gate(registry, now, None) == f"{now} is the champion."


def test_too_few_problems_move_no_champion(registry: Registry, tmp_path: Path):
    new = add_version(registry, tmp_path / "new", "bbb")
    told = apply_gate(registry, new, Gate(None, BETTER, 29))
    assert "is a challenger" in told and "on 29 problems. n = 29 is too few" in told
    assert registry.champion(MODEL) is None
    assert "is the new champion" in apply_gate(registry, new, Gate(None, BETTER, 30))


def test_the_first_champion_has_to_beat_the_base(registry: Registry, tmp_path: Path):
    first = add_version(registry, tmp_path / "first", "aaa")
    assert "has no champion: no iteration was better than the base" in apply_gate(registry, first, None)
    assert "is a challenger, not clearly better: against base" in apply_gate(registry, first, Gate(None, UNSURE, 500))
    assert registry.champion(MODEL) is None
    assert "is the new champion: against base" in apply_gate(registry, first, Gate(None, BETTER, 500))
    assert registry.client.get_registered_model(MODEL).aliases == {"champion": 1}


@pytest.mark.parametrize(
    ("measure", "difference", "passed", "words"),
    [
        (LOSS, WORSE, True, "against version 1, loss per token: -0.050 [-0.080, -0.020] on 90 gold answers"),
        (LOSS, BETTER, False, "not clearly better: against version 1, loss per token: 0.050"),
        (LOSS, UNSURE, False, "not clearly better"),
        (WIN_RATE, BETTER, True, "win rate minus 50.0%: 5.0% [2.0%, 8.0%] on 90 prompts"),
        (WIN_RATE, WORSE, False, "not clearly better"),
    ],
)
def test_each_measure_has_a_direction(
    registry: Registry, tmp_path: Path, measure: Measure, difference: Interval, passed: bool, words: str
):
    old, new = (add_version(registry, tmp_path / name, name) for name in ("old", "new"))
    registry.crown(old, "gate")
    assert words in apply_gate(registry, new, Gate(old, difference, 90, measure))
    now = registry.champion(MODEL)
    assert now is not None
    assert (now.number == "2") == passed
    assert registry.version(MODEL, "2").tags["gate_measure"] == measure.name


def test_what_cannot_be_compared_is_refused_with_a_sentence(registry: Registry, tmp_path: Path):
    old, new = (add_version(registry, tmp_path / name, name) for name in ("old", "new"))
    registry.crown(old, "gate")
    why = refusal(PAIR_ACCURACY, new.path, old)
    said = apply_gate(registry, new, Gate(old, None, 0, PAIR_ACCURACY, why), "set")
    assert "is a challenger, not compared with version 1: pair accuracy is measured against the base of its own" in said
    tags = registry.version(MODEL, "2").tags
    assert (tags["gate_refused"], tags["gate_passed"]) == (why, "no")
    assert gates_decided(registry, "set") == 0


def test_within_a_run_nothing_is_refused(registry: Registry, tmp_path: Path):
    base = add_version(registry, tmp_path / "base", "aaa")
    assert refusal(PAIR_ACCURACY, tmp_path / "new", base, base="aaa") is None
    assert refusal(ACCURACY, tmp_path / "new", base, base="bbb") is None
    assert refusal(WIN_RATE, tmp_path / "new", base) is None


def write_tokenizer(folder: Path, vocabulary: list[str], template: str, **more: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, **more}))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_losses_are_compared_only_with_the_same_tokenizer(registry: Registry, tmp_path: Path):
    old = add_version(registry, tmp_path / "old", "aaa")
    ours = write_tokenizer(tmp_path / "ours", ["a", "b"], "{{ x }}")
    assert "with different tokenizers or chat templates. Choose accuracy" in str(refusal(LOSS, ours, old))
    write_tokenizer(old.path, ["a", "b"], "{{ x }}", padding={"length": 8})
    assert refusal(LOSS, ours, old) is None
    for vocabulary, template in ((["a"], "{{ x }}"), (["a", "b"], "{{ y }}")):
        assert not same_tokenizer(ours, write_tokenizer(tmp_path / "other", vocabulary, template))
    (ours / "chat_template.jinja").unlink()
    (ours / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    assert same_tokenizer(ours, old.path)
    assert not same_tokenizer(tmp_path / "nothing", tmp_path / "nothing")


def test_it_is_counted_how_often_a_test_set_has_decided(registry: Registry, tmp_path: Path):
    versions = [add_version(registry, tmp_path / name, name) for name in ("one", "two", "three", "four")]
    decided = [
        (versions[0], Gate(None, UNSURE, 9), "set"),
        (versions[1], Gate(None, BETTER, 9), "set"),
        (versions[1], Gate(None, BETTER, 9), "set"),  # a run that was ended a second time
        (versions[2], Gate(versions[1], UNSURE, 9), "another set"),
        (versions[3], Gate(versions[1], None, 0), "set"),
    ]
    counts = []
    for version, gate, digest in decided:
        apply_gate(registry, version, gate, digest)
        counts.append(gates_decided(registry, "set"))
    assert counts == [1, 2, 2, 2, 2]
    assert gates_decided(registry, "set", but=versions[1].digest) == 1
    elsewhere = add_version(registry, tmp_path / "five", "five", "another-model")
    apply_gate(registry, elsewhere, Gate(None, UNSURE, 9), "set")
    assert gates_decided(registry, "set") == 3


def test_a_move_is_recorded_and_can_be_taken_back(registry: Registry, tmp_path: Path):
    with pytest.raises(RegistryError, match=r"has no champion\. Name one: autodidact promote"):
        registry.roll_back(MODEL)
    first, second = (add_version(registry, tmp_path / name, name) for name in ("first", "second"))
    registry.crown(first, "gate")
    with pytest.raises(RegistryError, match="no champion before"):
        registry.roll_back(MODEL)
    registry.crown(second, "hand")
    tags = registry.version(MODEL, "2").tags
    assert (tags["champion_before"], tags["champion_by"]) == ("1", "hand")
    assert datetime.fromisoformat(tags["champion_since"]).tzinfo is not None
    assert registry.roll_back(MODEL).number == "1"
    assert registry.version(MODEL, "1").tags["champion_by"] == "rollback"
    with pytest.raises(RegistryError, match=r"no version 7 of autodidact-nightly. The registry has versions 1, 2"):
        registry.version(MODEL, "7")
