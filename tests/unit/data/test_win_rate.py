"""Win rates: mirrored by swapping the sides, controlled for length bias, as computed by hand and by an optimizer."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import minimize
from scipy.special import expit

from data.judge_questions import questions
from data.metrics import Interval
from data.rows import Problem, Sample
from data.sides import Sides, side_by_side
from data.win_rate import RIDGE, Comparison, fit_logistic, length_controlled, win_rate
from tasks.policies.base import PolicySource
from tasks.rollouts import win_rate_settings
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.win_rate_settings import WinRateConfig, WinRateJudge, check_win_rate, judges_itself
from tasks.stage.contract import Artifact


def ends(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def mirrored(interval: Interval) -> list[float]:
    return [1 - interval.value, 1 - interval.high, 1 - interval.low]


def told(preferences: list[float], longer_by: list[float], seed: int) -> Interval:
    found = length_controlled(preferences, longer_by, seed)
    assert found is not None
    return found


def drawn(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Preferences that follow quality and length both, and how much longer our answers are."""
    rng = np.random.default_rng(seed)
    longer_by = rng.normal(40, 200, n).round()
    chance = expit(0.5 + longer_by / 150)
    return (rng.binomial(2, chance) / 2), longer_by


def test_two_lengths_as_computed_by_hand():
    """Preferred in 80 % where longer, in 50 % where shorter: logits ln 4 and 0, at equal lengths ln 2, which is ⅔."""
    preferences = [1.0] * 80 + [0.0] * 20 + [1.0] * 50 + [0.0] * 50
    found = told(preferences, [70.0] * 100 + [-70.0] * 100, seed=0)
    assert found.value == pytest.approx(2 / 3, abs=1e-4)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("separated", [False, True])
def test_the_fit_is_that_of_the_quasi_likelihood(separated: bool):
    y, longer_by = drawn(0)
    x = np.tanh(longer_by / longer_by.std())
    y = (x > 0).astype(float) if separated else y

    def loss(c: np.ndarray) -> float:
        z = c[0] + c[1] * x
        return float(np.sum(np.logaddexp(0, z) - y * z) + RIDGE / 2 * (c @ c))

    expected = minimize(
        loss, [0, 0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000}
    ).x
    for start in ((0, 0), (30, -30)):
        assert fit_logistic(y, x, start) == pytest.approx(expected, abs=1e-5)


def test_what_keeps_the_fit_finite_moves_no_rate():
    y, longer_by = drawn(1)
    x = np.tanh(longer_by / longer_by.std())
    free = minimize(lambda c: float(np.sum(np.logaddexp(0, c[0] + c[1] * x) - y * (c[0] + c[1] * x))), [0, 0]).x
    assert expit(fit_logistic(y, x)[0]) == pytest.approx(expit(free[0]), abs=1e-4)


def test_many_fits_at_once_are_each_their_own():
    (y, x), (other_y, other_x) = drawn(2), drawn(3)
    x, other_x = np.tanh(x / 200), np.tanh(other_x / 200)
    a, b = fit_logistic(np.stack([y, other_y]), np.stack([x, other_x]))
    assert (a[0], b[0]) == pytest.approx(fit_logistic(y, x))
    assert (a[1], b[1]) == pytest.approx(fit_logistic(other_y, other_x))


@pytest.mark.parametrize("seed", [0, 1])
def test_swapping_the_sides_mirrors_every_rate(seed: int):
    y, longer_by = drawn(seed)
    lengths = [(300 + int(d), 300) for d in longer_by]
    one = win_rate([Comparison("", p, *pair) for p, pair in zip(y, lengths, strict=True)], seed=4)
    back = win_rate([Comparison("", 1 - p, *pair[::-1]) for p, pair in zip(y, lengths, strict=True)], seed=4)
    assert ends(back.raw) == pytest.approx(mirrored(one.raw), abs=1e-12)
    assert one.length_controlled and back.length_controlled
    assert ends(back.length_controlled) == pytest.approx(mirrored(one.length_controlled), abs=1e-9)
    assert one.raw.value != one.length_controlled.value


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_judge_that_always_prefers_the_longer_answer_says_nothing(seed: int):
    """Lengths are random, and balanced: every difference occurs on both sides."""
    one_way = np.random.default_rng(seed).lognormal(5, 1, 50)
    longer_by = np.concatenate([one_way, -one_way])
    found = told(list((longer_by > 0).astype(float)), list(longer_by), seed)
    assert found.low <= 0.5 <= found.high


@pytest.mark.parametrize(("more", "seed"), [(80, 7), (150, 0), (150, 1), (200, 0)])
@pytest.mark.parametrize("mistakes", [0, 2])
def test_writing_more_for_such_a_judge_wins_raw_and_not_at_equal_lengths(more: int, seed: int, mistakes: int):
    rng = np.random.default_rng(seed)
    longer_by = rng.normal(more, 100, 100).round()
    y = (longer_by > 0).astype(float)
    y[:mistakes] = 1 - y[:mistakes]
    raw = win_rate([Comparison("", p, 2000 + int(d), 2000) for p, d in zip(y, longer_by, strict=True)], seed=0)
    assert raw.raw.low > 0.6
    assert raw.length_controlled is not None
    assert raw.length_controlled.low <= 0.5 <= raw.length_controlled.high


@pytest.mark.parametrize("preference", [1.0, 0.0, 0.5, None])
@pytest.mark.parametrize("sign", [1, -1])
def test_where_one_side_is_always_longer_no_rate_is_told(preference: float | None, sign: int):
    rng = np.random.default_rng(0)
    y = rng.binomial(2, 0.6, 40) / 2 if preference is None else np.full(40, preference)
    assert length_controlled(list(y), list(sign * rng.uniform(1, 500, 40)), seed=0) is None


def test_one_answer_that_is_as_short_for_once_tells_next_to_nothing():
    """More than one resample in three lacks it, so the interval is the whole scale."""
    y = np.random.default_rng(0).binomial(1, 0.8, 60).astype(float)
    assert ends(told(list(y), [float(n) for n in range(-1, 60) if n], seed=0))[1:] == [0, 1]


def test_a_judge_that_prefers_ours_also_where_it_is_shorter_keeps_its_rate():
    found = told([1.0] * 60, [50.0, -30.0] * 30, seed=0)
    assert found.low > 0.99


def test_a_judge_that_follows_quality_keeps_its_rate():
    rng = np.random.default_rng(0)
    longer_by, y = rng.normal(80, 100, 300), (rng.random(300) < 0.7).astype(float)
    found = told(list(y), list(longer_by), seed=0)
    assert found.value == pytest.approx(y.mean(), abs=0.05)
    assert found.low > 0.6


@pytest.mark.parametrize("preferences", [[1.0, 0.5, 0.0, 1.0], [1.0]])
def test_where_no_length_differs_it_is_the_raw_rate(preferences: list[float]):
    found = win_rate([Comparison("", p, 10, 10) for p in preferences], seed=0)
    assert found.length_controlled == found.raw


def test_no_comparison_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        win_rate([], seed=0)


def problem(name: str, response: str | None = None) -> Problem:
    return Problem(name, [{"role": "user", "content": name}], None, response, "", "test")


def answer(name: str, text: str, finish_reason: str = "stop") -> Sample:
    return Sample(name, 0, text, [1], finish_reason, "policy", 0, "")


def test_two_sides_meet_prompt_by_prompt_and_the_same_answers_are_a_tie():
    sides = Sides()
    ours = [answer("a", "long answer"), answer("b", "same"), answer("c", "cut", "length"), answer("d", "not compared")]
    theirs = [answer("a", "short"), answer("b", "same"), answer("c", "whole")]
    pairs = list(side_by_side([problem(name) for name in "abc"], ours, theirs, sides))
    assert [[(s.problem_id, s.index, s.text) for s in pair] for pair in pairs] == [
        [("a", 0, "long answer"), ("a", 1, "short")],
        [("c", 0, "cut"), ("c", 1, "whole")],
    ]
    assert (sides.asked, sides.truncated) == (2, (1, 0))
    found = sides.comparisons({"a": 1.0, "c": None})
    assert found == [Comparison("a", 1.0, 11, 5), Comparison("b", 0.5, 4, 4)]


def test_prompts_without_a_gold_answer_are_counted():
    sides = Sides()
    ours = [answer("a", "one"), answer("b", "two")]
    pairs = list(side_by_side([problem("a"), problem("b", "gold")], ours, None, sides))
    assert [pair[1].text for pair in pairs] == ["gold"]
    assert (sides.without_gold, list(sides.lengths)) == (1, ["b"])


@pytest.mark.parametrize("theirs", [[answer("b", "x")], []])
def test_answers_to_other_prompts_are_noticed(theirs: list[Sample]):
    with pytest.raises(ValueError, match="did not both answer problem a"):
        list(side_by_side([problem("a")], [answer("a", "x")], theirs, Sides()))


def test_a_truncated_answer_is_judged_only_if_asked_for():
    samples = [answer("a", "cut", "length"), answer("a", "whole")]
    assert not list(questions("pairwise", samples, 1, 2))
    assert len(list(questions("pairwise", samples, 1, 2, truncated=True))) == 2


def test_the_judge_compares_unless_told_otherwise():
    config = WinRateConfig.model_validate({"judge": {"model": "m"}})
    assert (config.judge.kind, config.judge.opinions, config.judge.temperature) == ("pairwise", 1, 0.0)
    assert WinRateConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"against": ["previous", "base"]}, "The first opponent decides.* Put base or gold first"),
        ({"against": []}, "Put base or gold first"),
        ({"against": ["base", "base"]}, "named twice"),
        ({"judge": {"kind": "pointwise"}}, "pairwise"),
        ({"judge": {"opponents": 4}}, "exactly two answers"),
        ({"judge": {"passes_at": 0.6}}, "exactly two answers"),
        ({"prompts": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        WinRateConfig.model_validate(settings)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three folders of models, of which two hold the same."""
    digests = {"base": "1", "copy": "1", "other": "2"}
    monkeypatch.setattr(win_rate_settings, "resolve_model", lambda model, choice: Path(model))
    monkeypatch.setattr(win_rate_settings, "folder_digest", lambda folder: digests[folder.name])

    def artifact(judge: Judge, offline: bool = False) -> Artifact | None:
        model = Path(str(judge.config.model))
        return None if judge.config.endpoint else Artifact(model, digests[model.name])

    monkeypatch.setattr(Judge, "artifact", artifact)
    monkeypatch.setattr(Judge, "check", lambda judge: None)
    return tmp_path


@pytest.mark.parametrize(
    ("judge", "policy", "same"),
    [("base", "base", True), ("copy", "base", True), ("other", "base", False), ("other", None, False)],
)
def test_a_judge_of_its_own_answers_is_warned_of(
    models: Path, caplog: pytest.LogCaptureFixture, judge: str, policy: str | None, same: bool
):
    source = PolicySource.model_validate({"model": policy and str(models / policy)})
    config = WinRateConfig.model_validate({"judge": {"model": str(models / judge)}})
    check_win_rate(config, source)
    assert ("is the model being trained" in caplog.text) == same


@pytest.mark.parametrize(
    ("judge", "lost", "same"), [("base", None, True), ("copy", None, True), ("base", "config.json", False)]
)
@pytest.mark.parametrize("start", ["best/policy", "iter-1/train/policy"])
def test_what_the_policy_was_trained_from_is_followed_back_over_runs(
    models: Path, monkeypatch: pytest.MonkeyPatch, judge: str, lost: str | None, same: bool, start: str
):
    """The second run began with the result of the first, which began with the base."""
    monkeypatch.setattr(win_rate_settings, "folder_digest", lambda folder: "trained")
    for run, model in (("first", models / "base"), ("second", models / "runs/first/best/policy")):
        folder = models / "runs" / run
        (folder / "base").mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model": str(model)}))
        digest = "1" if run == "first" else "trained"
        (folder / "base" / "manifest.json").write_text(json.dumps({"inputs": {"model": digest}}))
    if lost:
        (models / "runs" / "first" / lost).unlink()
    policy = PolicySource.model_validate({"model": str(models / "runs" / "second" / start)})
    assert judges_itself(WinRateJudge(model=str(models / judge)), policy) == same
    named = WinRateJudge(model=str(models / "base"), endpoint="http://localhost:9/v1")
    assert judges_itself(named, policy) == (lost is None)


def test_at_an_endpoint_it_is_known_by_its_name(models: Path):
    judge = WinRateJudge(model="a/b", endpoint="http://localhost:9/v1")
    assert judges_itself(judge, PolicySource.model_validate({"model": "a/b"}))
    assert not judges_itself(judge, PolicySource.model_validate({"model": "a/c"}))
