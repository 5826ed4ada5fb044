"""RLAIF (arXiv 2309.00267): a model labels preferences in place of people, and a policy learns from its labels.

A labeler compares answers that the policy draws, each two in both orders; its label is a probability. `learn: dpo`: the
policy learns from the labels themselves, and draws new answers in each iteration. `learn: reward-model`: a reward model
learns from labeled answers of the start, and the policy from the reward model, by PPO. `learn: direct` (d-RLAIF): no
labels; PPO's reward is the score that a model expects of an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from prefect import flow
from pydantic import Field, model_validator

from data.judge_questions import longest_reply
from data.label_questions import BEFORE_SCORE, scored
from data.labels import EVEN
from data.measures import OWN_PAIRS, Measure, MeasureName
from data.prepare.reading import Tally
from data.prepare.splits import HELD_OUT
from data.render import question_token_ids
from data.rewards import RewardError
from data.rows import Problem
from models.asking.label import ROLE
from models.config import LabelerConfig, Optimizer, PreferenceConfig, Schedule, TrainConfig
from tasks.datasets.demonstrations import SFT
from tasks.datasets.pairs import PAIRS_FILE, Apart, pair_by_label
from tasks.datasets.problems import prepare_problems
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.datasets.ranked import PROMPTS, RANKED, RANKED_FILE, Ranked, ranked_pairs
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.loop.on_policy import optimize
from tasks.policies.asked_model import asked_context, check_asked, check_reply_fits
from tasks.policies.base import base_policy
from tasks.policies.own_pairs import learn_own_pairs
from tasks.rollouts.direct_reward import ROLE as SCORER
from tasks.rollouts.generate import SAMPLES, Sampling, generate
from tasks.rollouts.label import LABELS, Labeling, label, labeling, measure_labeler
from tasks.rollouts.learn import Learning
from tasks.rollouts.rewards import DIRECT, MODELLED, Judging, RewardConfig, reward_inputs
from tasks.rollouts.trained_reward import REWARD
from tasks.rollouts.verified_pairs import verify_pairs
from tasks.settings.demonstrated import demonstrated
from tasks.settings.leading import MACHINE, PROBLEMS, START
from tasks.settings.ppo import PPOLoopConfig, mixed, reward_from
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.launch import Training
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

# Settings of other ways to learn, by the way that is chosen.
NO_EFFECT = {
    "dpo": ("train", "reward_train", "reward", "mix", "forced"),
    "reward-model": ("dpo",),
    "direct": ("labeler", "answers", "undecided", "dpo", "reward_train", "forced"),
}
NOTHING = Problem("", [{"role": "user", "content": ""}], None, None, "", "")


class LabeledPreferenceConfig(PreferenceConfig):
    """DPO on labels. The paper has no DPO; these are the settings of Self-Rewarding (arXiv 2401.10020)."""

    loss: Annotated[
        Literal["logistic"],
        Field(description="Must be logistic: −p·log sigmoid(m) − (1 − p)·log sigmoid(−m), with the label p."),
    ] = "logistic"
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Pairs per optimizer step, over all devices.")] = 16
    optimizer: Annotated[Optimizer, Field(description="Optimizer.")] = "adamw"
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"


class RLAIF(PPOLoopConfig):
    """Every setting of RLAIF."""

    leading_settings = (
        *START,
        "learn",
        "labeler.model",
        "demonstrations",
        *PROBLEMS,
        "iterations",
        "answers",
        "generate.max_tokens",
        "dpo.learning_rate",
        "dpo.beta",
        "train.steps",
        "train.problems",
        "train.learning_rate",
        "train.kl",
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )
    measures: ClassVar[tuple[MeasureName, ...]] = ("win_rate", "sampled_accuracy", "accuracy")

    learn: Annotated[
        Literal["dpo", "reward-model", "direct"],
        Field(
            description="dpo: the policy learns from the labels of its answers (settings: dpo); reward-model: a reward "
            "model does (reward_train), and the policy from it, by PPO (train); direct: the policy learns by PPO from "
            "what a model thinks of each answer (reward.direct)."
        ),
    ] = "dpo"
    labeler: Annotated[LabelerConfig, Field(description="The model that labels.")] = LabelerConfig()
    answers: Annotated[
        int, Field(ge=2, multiple_of=2, description="Answers to each prompt, which are compared two by two.")
    ] = 2
    undecided: Annotated[
        float,
        Field(
            ge=EVEN,
            lt=1,
            description="Pairs whose label is no higher are left out; 0.5: only those of which neither is better.",
        ),
    ] = EVEN
    ranked: Annotated[
        Path | None,
        Field(
            description="Data set of people's pairs, in any known format, on which the labeler is measured. No pair or "
            "demonstration with their prompts is learned."
        ),
    ] = None
    limit_ranked: Annotated[int | None, Field(ge=1, description="Use at most this many of them.")] = None
    dpo: Annotated[LabeledPreferenceConfig, Field(description="With learn: dpo: how the policy is trained.")] = (
        LabeledPreferenceConfig()
    )

    @property
    def training(self) -> Training[Any]:
        return Training(self.dpo, self.launch) if self.learn == "dpo" else super().training

    @property
    def trained(self) -> dict[str, TrainConfig]:
        found = super().trained | {"dpo": self.dpo}
        return {name: config for name, config in found.items() if name not in NO_EFFECT[self.learn]}

    @property
    def compared(self) -> Sampling:
        """How answers are drawn that are compared."""
        return Sampling(self.generate.model_copy(update={"samples": self.answers}), self.engine)

    @property
    def has_proxy(self) -> bool:
        return self.learn == "reward-model" and super().has_proxy

    @property
    def pair_measure(self) -> Measure:
        return OWN_PAIRS

    @property
    def ready_rewards(self) -> tuple[RewardConfig, ...]:
        own = {"reward-model": MODELLED, "direct": DIRECT}.get(self.learn, "")
        made = own == MODELLED or (own == DIRECT and self.reward.direct.model is None)
        reward = self.reward.without(own) if made else self.reward if own else None
        return (self.measured_by,) if reward is None else (reward, self.measured_by)

    @property
    def people(self) -> Ranked | None:
        """People's pairs on which the labeler is measured."""
        return None if self.ranked is None else Ranked(RANKED, self.shown(self.ranked).reading, self.limit_ranked)

    def verified(self, at: Place, problems: Artifact, pairs: Artifact) -> dict[str, Result]:
        """The stage that compares pairs with a verifier, if there is one."""
        if self.measured_by.models:
            return {}
        return {"verify": verify_pairs(at, problems, pairs, Judging(self.measured_by, self.engine))}

    def input_files(self) -> dict[str, Path]:
        return super().input_files() | ({RANKED: self.ranked} if self.ranked else {})

    def check_inputs(self) -> None:
        super().check_inputs()
        self._say_what_has_no_effect()
        if self.learn == "direct":
            self._check_room_for_scores()
            return
        context = policy_tokenizer(self).context
        if self.labeler.model is not None:
            check_asked(self.labeler.asked, ROLE)
            context = asked_context(self.labeler.asked, ROLE)
        reasoning = self.labeler.max_reasoning
        check_reply_fits("labeler", reasoning, longest_reply(reasoning), self.engine.max_model_len or context)
        for _ in self.people.read(Tally()) if self.people else ():
            pass

    def _say_what_has_no_effect(self) -> None:
        """Warn of settings of another way to learn."""
        idle = [name for name in NO_EFFECT[self.learn] if _is_set(getattr(self, name), type(self), name)]
        if self.learn == "dpo" and self.generate.samples != type(self).model_fields["generate"].default.samples:
            idle.append("generate.samples")
        if idle:
            run_logger().warning("With learn: %s, these settings have no effect: %s.", self.learn, ", ".join(idle))

    def _check_room_for_scores(self) -> None:
        """Refuse answers that the model which scores them cannot read with the question about them.

        Raises:
            RewardError: they are too long.
        """
        own, policy = self.reward.direct, policy_tokenizer(self)
        context = policy.context if own.model is None else asked_context(own.asked, SCORER)
        limit = min(context, own.max_length or context)
        question = question_token_ids(policy.tokenizer, scored(NOTHING, "", own.rubric))
        if len(question) + self.generate.max_tokens + len(BEFORE_SCORE) >= limit:
            raise RewardError(
                f"The question about an answer takes {len(question):,} tokens and an answer up to "
                f"{self.generate.max_tokens:,}, but the model that scores reads {limit:,}.",
                what_next="Lower generate.max_tokens, give a shorter reward.direct.rubric, or name another "
                "reward.direct.model.",
            )

    @model_validator(mode="before")
    @classmethod
    def _direct_names_its_reward(cls, told: Any) -> Any:
        """What `learn: direct` learns from need not be named twice, and values need not begin with a reward model."""
        if not isinstance(told, dict) or told.get("learn") != "direct":
            return told
        reward, train = told.get("reward", {}), told.get("train", {})
        if isinstance(reward, dict) and not reward.keys() & {"name", "parts"}:
            told = told | {"reward": reward | {"name": DIRECT}}
        if isinstance(train, dict):
            told = told | {"train": {"value_from": "policy"} | train}
        return told

    @model_validator(mode="after")
    def _direct_is_whole(self) -> Self:
        if self.learn != "direct":
            return self
        if DIRECT not in self.reward.names:
            raise ValueError(
                f"learn: direct learns from the reward direct, but the rewards are {', '.join(self.reward.names)}. Set "
                "reward.name: direct, or add direct to reward.parts."
            )
        if self.ranked is not None:
            raise ValueError("ranked measures the labeler, but learn: direct has none. Leave it out.")
        if self.train.value_from == "reward-model" and MODELLED not in self.reward.names:
            raise ValueError(
                "train.value_from is reward-model, but learn: direct has none. Set train.value_from: policy."
            )
        return self

    @model_validator(mode="after")
    def _labels_have_use(self) -> Self:
        if self.learn == "reward-model" and not self.makes_reward_model:
            raise ValueError(
                "learn: reward-model learns a reward model from labels, but reward.model.path names a finished one, or "
                "the rewards have none. Leave out reward.model.path and reward.name, add reward-model to reward.parts "
                "if there are parts, or use the flow rlhf."
            )
        clamp = self.labeler.clamp
        if clamp is not None and self.undecided >= 1 - clamp:
            raise ValueError(
                f"With labeler.clamp {clamp:g} no label is higher than {1 - clamp:g}, but pairs up to undecided "
                f"{self.undecided:g} are left out. Lower undecided, or leave out labeler.clamp."
            )
        return self


def _is_set(value: Any, settings: type[RLAIF], name: str) -> bool:
    """Whether a setting differs from its default; number formats are set for all ways together."""
    default = settings.model_fields[name].get_default(call_default_factory=True)
    if isinstance(value, TrainConfig):
        value = value.model_copy(update={"dtype": default.dtype})
    return bool(value != default)


@flow(name="rlaif", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def rlaif(config: RLAIF, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run RLAIF, or continue where an earlier start of the same run stopped."""
    return run_loop("RLAIF", loop, config, on_drift)


def loop(run: Run, config: RLAIF) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems = prepare_problems(run, config)
    measured = ranked_pairs(run.place(RANKED), config.people) if config.people else None
    ranked = measured.artifact(PROMPTS) if measured else None
    apart = Apart(config.held_out_pairs, ranked, config.undecided, measured=config.learn == "reward-model")
    unseen = config.unseen(problems) | ({RANKED: apart.prompts} if apart.prompts else {})
    base, _ = demonstrated(run.place(SFT), config, base_policy(run, config), unseen)
    start = base.artifact("policy")
    if config.learn == "direct":
        return optimize(run, config, problems, base, directly_scored(run, config, start, unseen))
    how = labeling(run, config.labeler, config.engine, start)
    judged = measure_labeler(run.place(RANKED), measured.artifact(RANKED_FILE), how) if measured else None
    labels = Labels(how, apart, {"judge": judged} if judged else {})
    if config.learn == "dpo":
        return prefer(run, config, problems, base, labels)
    mix, at = mixed(run, config, start, unseen), run.place(REWARD)
    made = labels.pairs(at, start, problems.artifact("train.parquet"), config)
    pairs, others = (made["pair"].artifact(name) for name in (PAIRS_FILE, f"{HELD_OUT}.parquet"))
    scorers = reward_from(at, config, start, pairs, others)
    before = {**labels.measured, "label": made["label"]}
    return optimize(run, config, problems, base, replace(config.learning(start, scorers, mix), before=before))


@dataclass(frozen=True)
class Labels:
    """How pairs are labeled, and which are not learned.

    Attributes:
        measured: what is known of the labeler: the stage that measured it, by kind.
    """

    how: Labeling
    apart: Apart
    measured: Mapping[str, Result]

    def pairs(self, at: Place, policy: Artifact, problems: Artifact, config: RLAIF) -> dict[str, Result]:
        """The stages that make labeled pairs of a policy's answers, by kind."""
        sampled = generate(at, policy, {SAMPLES: problems}, config.compared)
        samples = sampled.artifact(SAMPLES)
        labeled = label(at, problems, samples, self.how)
        made = pair_by_label(at, problems, samples, labeled.artifact(LABELS), self.apart)
        return {"generate": sampled, "label": labeled, "pair": made}


def prefer(run: Run, config: RLAIF, problems: Result, base: Result, labels: Labels) -> dict[str, Any]:
    """Learn from the labels of fresh answers by DPO, iteration after iteration."""
    measuring, iterations = begin(run, config, problems, base, stages=labels.measured)
    given, policy, reason = problems.artifact("train.parquet"), base, None
    for number in range(1, config.iterations + 1):
        at, before = run.iteration(number), policy.artifact("policy")
        stages = labels.pairs(at, before, given, config)
        pairs, others = (stages["pair"].artifact(name) for name in (PAIRS_FILE, f"{HELD_OUT}.parquet"))
        stages |= config.verified(at, given, pairs)
        policy, learned, unseen = learn_own_pairs(at, before, pairs, others, config.training)
        stages |= learned
        if reason := add_iteration(measuring, iterations, policy, stages, {"validation": unseen}):
            break
    return conclude(measuring, iterations, reason)


def directly_scored(run: Run, config: RLAIF, start: Artifact, unseen: Mapping[str, Artifact]) -> Learning:
    """How the policy learns from what a model thinks of its answers: one of its own, or the start."""
    reward, mix = config.reward, mixed(run, config, start, unseen)
    if reward.direct.model is not None:
        return config.learning(start, reward_inputs(run, reward), mix)
    own = reward.direct.model_copy(update={"model": str(start.path), "model_code": run.model_code})
    scorers = reward_inputs(run, reward, made=(DIRECT,)) | {DIRECT: start}
    return replace(config.learning(start, scorers, mix), reward=reward.model_copy(update={"direct": own}))
