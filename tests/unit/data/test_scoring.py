"""Scoring: a reward is applied to every sample in order, and its own failures are never taken for wrong answers."""

from collections.abc import Iterator

import pytest

from data.combining import Combination, Part, combine
from data.rows import BY_THE_ANSWER, Problem, Sample, Score
from data.scoring import LONGEST_TEXT, Tally, TooManyErrorsError, check_errors, pair_up, score_samples


def problem(name: str, reference: str = "5") -> Problem:
    return Problem(name, [{"role": "user", "content": name}], reference, None, "test", "train")


def sample(name: str, index: int, text: str = "5", finish_reason: str = "stop", tokens: int = 3) -> Sample:
    return Sample(name, index, text, list(range(tokens)), finish_reason, "policy-1", 0, "sampling-1")


def exact(problem: Problem, completion: str) -> Score:
    """Right if equal; raises on 'raise', and cannot judge 'hard'."""
    if completion == "raise":
        raise RuntimeError(f"broke on {problem.id}")
    if completion == "exit":
        raise SystemExit(3)
    if completion == "hard":
        return Score(None, "timeout", "took too long")
    if completion == "none":
        return Score(0.0, "unparsable", "no answer")
    right = completion == problem.reference
    return Score(float(right), "correct" if right else "wrong", "compared", completion)


def run(samples: list[Sample], reward=exact, problems: list[Problem] | None = None) -> tuple[list[Score], Tally]:
    tally = Tally()
    problems = [problem("a"), problem("b", "6")] if problems is None else problems
    return list(score_samples(problems, samples, reward, "exact@1", tally)), tally


def test_a_score_carries_what_the_reward_said_and_which_sample_and_grader_it_is_of() -> None:
    scores, _ = run([sample("a", 0, "5"), sample("a", 1, "7"), sample("b", 0, "6")])
    assert scores == [
        Score(1.0, "correct", "compared", "5", "a", 0, "exact@1"),
        Score(0.0, "wrong", "compared", "7", "a", 1, "exact@1"),
        Score(1.0, "correct", "compared", "6", "b", 0, "exact@1"),
    ]


def test_what_a_reward_says_is_cut_and_can_be_stored() -> None:
    def talkative(problem: Problem, completion: str) -> Score:
        if completion == "raise":
            raise ValueError("\ud800" * 10_000_000)
        return Score(1.0, "correct", "\ud800" + "x" * 10_000_000, "y" * 10_000_000)

    (said, raised), tally = run([sample("a", 0), sample("a", 1, "raise")], talkative)
    for text in (said.explanation, said.answer, raised.explanation, tally.first_traceback):
        assert text and len(text.encode()) < 7 * LONGEST_TEXT
    assert said.explanation.startswith("\\ud800xxx") and "(10,000,001 characters in all)" in said.explanation
    assert (raised.verdict, raised.explanation[:20]) == ("error", "ValueError: \\ud800\\u")


@pytest.mark.parametrize("score", [Score(1.0, "correct", None), Score(1.0, "correct", "", 5)])  # type: ignore[arg-type]
def test_what_is_no_text_is_an_error_of_the_reward(score: Score) -> None:
    (given,), tally = run([sample("a", 0)], lambda problem, completion: score)
    assert (given.value, given.verdict, tally.errors) == (None, "error", 1)
    assert "both must be strings" in given.explanation


@pytest.mark.parametrize(
    ("text", "finish_reason", "value", "verdict", "explanation"),
    [
        ("5", "stop", 1.0, "correct", "compared"),
        ("7", "stop", 0.0, "wrong", "compared"),
        ("none", "stop", 0.0, "unparsable", "no answer"),
        ("hard", "stop", None, "timeout", "took too long"),
        ("raise", "stop", None, "error", "RuntimeError: broke on a"),
        ("exit", "stop", None, "error", "SystemExit: 3"),
        ("5", "length", 0.0, "wrong", "truncated at the token limit"),
        ("raise", "length", 0.0, "wrong", "truncated at the token limit"),
        ("5", "abort", 0.0, "wrong", "truncated at the token limit"),
    ],
)
def test_a_sample_gets_its_verdict(
    text: str, finish_reason: str, value: float | None, verdict: str, explanation: str
) -> None:
    (score,), tally = run([sample("a", 0, text, finish_reason)])
    assert (score.value, score.verdict, score.explanation) == (value, verdict, explanation)
    assert tally.verdicts == {verdict: 1}
    assert tally.truncated == (finish_reason != "stop")
    assert tally.errors == (verdict == "error")


def test_what_an_answer_keeps_from_being_told_is_no_failure_of_the_reward() -> None:
    untold, failed = Score(None, "error", BY_THE_ANSWER + "it says"), Score(None, "error", "no connection")
    (score,), tally = run([sample("a", 0)], lambda problem, completion: untold)
    assert (score.value, score.verdict, tally.errors, tally.verdicts) == (None, "error", 0, {"error": 1})
    both = Combination({"one": Part(), "two": Part()})
    assert combine({"one": untold, "two": Score(1.0, "correct")}, 3, both).explanation.startswith(BY_THE_ANSWER)
    assert not combine({"one": untold, "two": failed}, 3, both).explanation.startswith(BY_THE_ANSWER)


def test_a_tally_counts_every_sample_once() -> None:
    texts = ["5", "5", "7", "none", "hard", "raise"]
    samples = [sample("a", i, text, tokens=i) for i, text in enumerate(texts)] + [sample("b", 0, "6", "length", 100)]
    _, tally = run(samples)
    assert tally.verdicts == {"correct": 2, "wrong": 2, "unparsable": 1, "timeout": 1, "error": 1}
    assert (tally.samples, tally.truncated, tally.errors, tally.tokens) == (7, 1, 1, 115)


def test_the_first_traceback_of_a_failing_reward_is_kept() -> None:
    def fails(problem: Problem, completion: str) -> Score:
        raise RuntimeError(f"failure {completion}")

    _, tally = run([sample("a", 0, "first"), sample("a", 1, "second")], fails)
    assert "RuntimeError: failure first" in tally.first_traceback
    assert "in fails" in tally.first_traceback
    assert "second" not in tally.first_traceback


def test_an_error_that_the_reward_reports_itself_is_counted_and_explained() -> None:
    _, tally = run([sample("a", 0)], lambda problem, completion: Score(None, "error", "the judge is down"))
    assert (tally.errors, tally.first_traceback) == (1, "the judge is down")


@pytest.mark.parametrize("returned", [1.0, True, None, "correct", (1.0, "correct")])
def test_a_reward_that_returns_something_else_than_a_score_has_failed(returned: object) -> None:
    (score,), tally = run([sample("a", 0)], lambda problem, completion: returned)
    assert (score.value, score.verdict) == (None, "error")
    assert f"The reward returned {returned!r}; it must return a data.rows.Score" in tally.first_traceback


@pytest.mark.parametrize(
    ("errors", "samples", "allowed", "refused"),
    [(0, 0, 0.0, False), (0, 100, 0.0, False), (1, 100, 0.01, False), (2, 100, 0.01, True), (1, 1000, 0.0, True)],
)
def test_more_errors_than_the_allowed_share_are_refused(
    errors: int, samples: int, allowed: float, refused: bool
) -> None:
    texts = ["raise"] * errors + ["5"] * (samples - errors)
    _, tally = run([sample("a", i, text) for i, text in enumerate(texts)])
    if not refused:
        check_errors(tally, allowed)
        return
    with pytest.raises(TooManyErrorsError) as error:
        check_errors(tally, allowed)
    says = [
        f"failed on {errors} of {samples:,} samples ({errors / samples:.1%};",
        f"reward.max_error_share allows {allowed:.1%}",
        "RuntimeError: broke on a",
        "Fix the reward and run the same command again: the samples are kept.",
    ]
    for words in says:
        assert words in str(error.value)


def test_problems_without_samples_are_passed_over() -> None:
    problems = [problem(name) for name in "abcd"]
    pairs = list(pair_up(problems, [sample("b", 0), sample("b", 1), sample("d", 0)]))
    assert [(p.id, s.problem_id, s.index) for p, s in pairs] == [("b", "b", 0), ("b", "b", 1), ("d", "d", 0)]


@pytest.mark.parametrize(
    ("order", "named"),
    [(["b", "a"], "a"), (["a", "unknown"], "unknown"), (["a", "b", "a"], "a"), (["a", "b", "c"], "c")],
)
def test_a_sample_out_of_order_or_of_no_problem_is_refused_with_its_name(order: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=f"Sample 17 of problem {named} has no matching problem"):
        run([sample(name, 17) for name in order])


def test_samples_without_any_problem_are_refused() -> None:
    with pytest.raises(ValueError, match="Sample 0 of problem a has no matching problem"):
        run([sample("a", 0)], problems=[])


def test_rows_are_streamed_not_gathered() -> None:
    taken = {"problems": 0, "samples": 0}

    def problems() -> Iterator[Problem]:
        for number in range(1000):
            taken["problems"] += 1
            yield problem(str(number))

    def samples() -> Iterator[Sample]:
        for number in range(4000):
            taken["samples"] += 1
            yield sample(str(number // 4), number % 4)

    scores = score_samples(problems(), samples(), exact, "exact@1", Tally())
    assert taken == {"problems": 0, "samples": 0}
    for _ in range(10):
        next(scores)
    assert taken["problems"] <= 4
    assert taken["samples"] <= 11
