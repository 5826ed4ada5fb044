"""The row types that cross stage boundaries, and their Parquet schemas.

Rows can be traced back: Example → Sample (problem id, index) → policy digest → the manifest of the stage that wrote
that policy.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

Verdict = Literal["correct", "wrong", "unparsable", "timeout", "error"]
UNGRADED: tuple[Verdict, ...] = ("timeout", "error")
Split = Literal["demonstration", "train", "validation", "test", "transfer"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "transfer")  # those of a run's problems

# Zero-width spaces and joiners, direction marks and overrides, the byte-order mark, soft hyphens; and remnants
# of dashes and quotes read in the wrong encoding. Persian, Indic and right-to-left texts need some of them,
# so texts keep them all; only the comparison of prompts ignores them.
HIDDEN = re.compile("[\x80-\x9f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TOKEN_IDS = pa.list_(pa.int32())
_PARTS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64()), ("verdict", pa.string())]))


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt and what a verifier needs to judge an answer to it."""

    id: str
    messages: list[dict[str, str]]
    reference: str | None
    response: str | None
    source: str
    split: str

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("id", pa.string()),
            ("messages", _MESSAGES),
            ("reference", pa.string()),
            ("response", pa.string()),
            ("source", pa.string()),
            ("split", pa.string()),
        ]
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion that a policy wrote. Its `token_ids` include the stop token, if generation ended at one."""

    problem_id: str
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str
    policy: str
    seed: int
    sampling: str

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("text", pa.string()),
            ("token_ids", _TOKEN_IDS),
            ("finish_reason", pa.string()),
            ("policy", pa.string()),
            ("seed", pa.int64()),
            ("sampling", pa.string()),
        ]
    )

    @property
    def truncated(self) -> bool:
        return self.finish_reason != "stop"


BY_THE_ANSWER = "The answer keeps it from being told: "


@dataclass(frozen=True, slots=True)
class Score:
    """The result of a reward for one completion.

    A reward returns `value`, `verdict`, `explanation` and `answer` (the final answer as the grader read it, in a
    canonical form that equal answers share; used by majority votes). The score stage fills in the other fields;
    `parts` holds name, value and verdict of each reward if several are combined.
    `value` is None exactly if nothing could be graded (`timeout`, `error`): that is not a wrong answer. An `error`
    whose explanation begins with `BY_THE_ANSWER` is not a failure of the reward: the way the answer is written makes it
    undecidable, and a policy that writes many of these must not stop the run.
    """

    value: float | None
    verdict: Verdict
    explanation: str = ""
    answer: str | None = None
    problem_id: str = ""
    index: int = 0
    grader: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("value", pa.float64()),
            ("verdict", pa.string()),
            ("explanation", pa.string()),
            ("answer", pa.string()),
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("grader", pa.string()),
            ("parts", _PARTS),
        ]
    )


@dataclass(frozen=True, slots=True)
class Example:
    """One training row: the prompt's messages and one completion, weighted by its reward.

    `source` is the data set that the prompt is from.

    A completion that a policy wrote carries its own `token_ids` and is trained on exactly these; a gold completion has
    none and is rendered from `completion`.
    """

    problem_id: str
    index: int
    messages: list[dict[str, str]]
    completion: str
    token_ids: list[int] | None
    policy: str
    weight: float = field(default=1.0)
    source: str = ""

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("messages", _MESSAGES),
            ("completion", pa.string()),
            ("token_ids", _TOKEN_IDS),
            ("policy", pa.string()),
            ("weight", pa.float64()),
            ("source", pa.string()),
        ]
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with a preferred and a dispreferred completion, and where each came from.

    `chosen_source` and `rejected_source` are the digest of the policy that wrote the completion, or the name of the
    file it was read from. Token ids are None for a gold completion, as in `Example`. `label` is the probability that
    the chosen one is better, if a model has labeled the pair; None: it is better.
    """

    problem_id: str
    index: int
    messages: list[dict[str, str]]
    chosen: str
    rejected: str
    chosen_token_ids: list[int] | None
    rejected_token_ids: list[int] | None
    chosen_source: str
    rejected_source: str
    label: float | None = None

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("messages", _MESSAGES),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("chosen_token_ids", _TOKEN_IDS),
            ("rejected_token_ids", _TOKEN_IDS),
            ("chosen_source", pa.string()),
            ("rejected_source", pa.string()),
            ("label", pa.float64()),
        ]
    )


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer that a policy drew while it was being trained, with its score and what was learned from it.

    `step` counts from 1 over all iterations; the policy that wrote the answer had made the steps before it. `index` is
    unique among all answers to a problem in a run. Token ids, finish reason and seed are those of a `Sample`; value,
    verdict, explanation, answer, grader and parts those of a `Score`. `advantage` is None if nothing was learned from
    the answer, because another group took the place of its own.
    """

    problem_id: str
    index: int
    step: int
    completion: str
    token_ids: list[int]
    finish_reason: str
    seed: int
    value: float | None
    verdict: Verdict
    explanation: str
    answer: str | None
    grader: str
    parts: list[dict[str, Any]]
    advantage: float | None

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("step", pa.int32()),
            ("completion", pa.string()),
            ("token_ids", _TOKEN_IDS),
            ("finish_reason", pa.string()),
            ("seed", pa.int64()),
            ("value", pa.float64()),
            ("verdict", pa.string()),
            ("explanation", pa.string()),
            ("answer", pa.string()),
            ("grader", pa.string()),
            ("parts", _PARTS),
            ("advantage", pa.float64()),
        ]
    )

    @property
    def score(self) -> Score:
        told = self.value, self.verdict, self.explanation, self.answer
        return Score(*told, self.problem_id, self.index, self.grader, self.parts)


@dataclass(frozen=True, slots=True)
class PairLikelihood:
    """One policy's likelihoods of one pair: log-probabilities summed over answer tokens, and the numbers of tokens."""

    problem_id: str
    index: int
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("chosen", pa.float64()),
            ("rejected", pa.float64()),
            ("chosen_tokens", pa.int32()),
            ("rejected_tokens", pa.int32()),
        ]
    )


@dataclass(frozen=True, slots=True)
class GoldLikelihood:
    """One policy's likelihood of one gold answer: log-probability summed over answer tokens, and the number of tokens.

    `index` distinguishes the answers to one prompt.
    """

    problem_id: str
    index: int
    log_prob: float
    tokens: int

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [("problem_id", pa.string()), ("index", pa.int32()), ("log_prob", pa.float64()), ("tokens", pa.int32())]
    )


@dataclass(frozen=True, slots=True)
class PairReward:
    """One reward model's rewards of both answers of one pair, and the answers' numbers of tokens."""

    problem_id: str
    index: int
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    SCHEMA: ClassVar[pa.Schema] = PairLikelihood.SCHEMA


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One policy's value on one held-out row, by one measure; see `data.measures`."""

    problem_id: str
    index: int
    value: float
    weight: float = 1.0

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [("problem_id", pa.string()), ("index", pa.int32()), ("value", pa.float64()), ("weight", pa.float64())]
    )


def normalize_prompt(text: str) -> str:
    """The form in which prompts are compared: NFKC, case folded, white space collapsed, invisible characters gone."""
    return " ".join(HIDDEN.sub("", unicodedata.normalize("NFKC", text)).casefold().split())


def problem_id(messages: list[dict[str, str]]) -> str:
    """Identity of a prompt: 16 hex digits of the SHA-256 over its normalized messages."""
    joined = "\x1e".join(f"{m['role']}\x1f{normalize_prompt(m['content'])}" for m in messages)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]
