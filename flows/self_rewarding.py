"""Self-Rewarding (arXiv 2401.10020): a policy answers, judges its own answers, and learns the best over the worst.

Each iteration draws several answers to each prompt, which the same policy then scores several times by a rubric; DPO
learns each prompt's best answer over its worst, and both the answers and the judgment should improve. Start from a
policy that can judge: one that has learned `demonstrations` of answers and of judgments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from prefect import flow
from pydantic import Field, model_validator

from data.measures import OWN_PAIRS, Measure, MeasureName
from data.prepare.reading import Tally
from data.prepare.splits import HELD_OUT
from data.rewards import RewardError
from models.asking.new_prompts import ROLE
from models.config import NewPromptsConfig, Optimizer, PreferenceConfig, SamplingConfig, Schedule, TrainConfig
from models.config_base import Config
from tasks.datasets.demonstrations import SFT, check_demonstrations
from tasks.datasets.new_prompts import PROBLEMS as PROBLEMS_FILE
from tasks.datasets.new_prompts import NewPrompts, make_up_prompts
from tasks.datasets.pairs import PAIRS_FILE, Apart, pair_judged
from tasks.datasets.problems import prepare_problems
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.datasets.ranked import BASELINE, EFT, PROMPTS, RANKED, RANKED_FILE, Ranked, ranked_pairs
from tasks.datasets.select import EXAMPLES
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.asked_model import check_asked, check_reply_fits
from tasks.policies.base import base_policy
from tasks.policies.own_pairs import learn_own_pairs
from tasks.policies.train import train
from tasks.rollouts.generate import SAMPLES, generate
from tasks.rollouts.judge_agreement import PolicyJudge, measure_judge, useless_judge
from tasks.rollouts.judgments import judgment_examples
from tasks.rollouts.rewards import JUDGED, Judging, RewardConfig, problems_judged_by
from tasks.rollouts.score import SCORES, score
from tasks.rollouts.verified_pairs import verify_pairs
from tasks.settings.demonstrated import Demonstrated, SFTTrainConfig, demonstrated
from tasks.settings.leading import MACHINE, PROBLEMS, START, TRAINING
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.launch import Training
from tasks.stage.run import Place, Result, Run


class SelfSamplingConfig(SamplingConfig):
    """How the policy answers."""

    samples: Annotated[int, Field(ge=2, description="Answers to each prompt, of which it learns two.")] = 4
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus sampling: keep this probability mass.")] = 0.9
    top_k: Annotated[int, Field(ge=0, description="Sample from the k most likely tokens; 0: from all.")] = 0


class SelfTrainConfig(PreferenceConfig):
    """DPO as in the paper, which names no number of epochs."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Pairs per optimizer step, over all devices.")] = 16
    optimizer: Annotated[Optimizer, Field(description="Optimizer.")] = "adamw"
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"


class SelfSFTConfig(SFTTrainConfig):
    """SFT as in the paper, which names no number of epochs."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5.5e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the demonstrations and judgments.")] = 2.0
    batch_size: Annotated[int, Field(ge=1, description="Rows per optimizer step, over all devices.")] = 16


class OwnJudgmentConfig(RewardConfig):
    """How answers are scored: by the policy's own judgment, unless another reward is named."""

    name: Annotated[str, Field(description="What scores answers; a judge without a model is the policy itself.")] = (
        JUDGED
    )


class JudgeLimits(Config):
    """When the policy's judgment is too bad to learn from, so that the loop ends."""

    entropy: Annotated[float, Field(ge=0, description="Least entropy of its scores, in bits.")] = 0.3
    length: Annotated[
        float, Field(gt=0, le=1, description="Most correlation of its scores with the length of answers.")
    ] = 0.8


class SelfRewarding(Demonstrated, LoopConfig):
    """Every setting of Self-Rewarding. Defaults are the paper's."""

    leading_settings = (
        *START,
        "demonstrations",
        "eft",
        "ranked",
        *PROBLEMS,
        "iterations",
        "generate.samples",
        "generate.max_tokens",
        "reward.judge.opinions",
        *TRAINING,
        "train.beta",
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )
    measures: ClassVar[tuple[MeasureName, ...]] = ("win_rate", "sampled_accuracy", "accuracy")

    iterations: Annotated[int, Field(ge=1, description="Most iterations.")] = 2
    new_prompts: Annotated[
        NewPromptsConfig | None,
        Field(
            description="Let a model make up new prompts in each iteration, after examples from the given ones. "
            "Without a model or endpoint the policy does. Default: the given prompts themselves."
        ),
    ] = None
    eft: Annotated[
        Path | None,
        Field(
            description="Data set of people's pairs, in any known format. The policy judges them before the loop, and "
            "learns those of its judgments that agree with people, with the demonstrations (EFT in the paper)."
        ),
    ] = None
    limit_eft: Annotated[int | None, Field(ge=1, description="Use at most this many of them.")] = None
    ranked: Annotated[
        Path | None,
        Field(
            description="Data set of people's pairs, in any known format, on which the policy as judge is measured. "
            "No pair, judgment or demonstration with their prompts is learned."
        ),
    ] = None
    limit_ranked: Annotated[int | None, Field(ge=1, description="Use at most this many of them.")] = None
    judge_limits: Annotated[
        JudgeLimits, Field(description="With `ranked`: when its judgment is too bad to learn from.")
    ] = JudgeLimits()
    held_out_pairs: Annotated[
        float, Field(gt=0, lt=1, description="Share of the prompts whose pairs are not learned, but measured.")
    ] = 0.1
    generate: Annotated[SelfSamplingConfig, Field(description="How answers are drawn.")] = SelfSamplingConfig()
    reward: Annotated[OwnJudgmentConfig, Field(description="How answers are scored.")] = OwnJudgmentConfig(
        parts={}, options={}
    )
    sft_train: Annotated[SelfSFTConfig, Field(description="How it learns demonstrations and judgments first.")] = (
        SelfSFTConfig()
    )
    train: Annotated[SelfTrainConfig, Field(description="How the policy is trained.")] = SelfTrainConfig()

    @model_validator(mode="after")
    def _has_use_for_pairs(self) -> Self:
        given = [name for name, path in (("eft", self.eft), ("ranked", self.ranked)) if path is not None]
        if given and not self.judges_itself:
            raise ValueError(
                f"{' and '.join(given)} teach and measure the policy as a judge, but another one judges here. "
                "Leave it out, or set reward.name judge without reward.judge.model."
            )
        return self

    @model_validator(mode="after")
    def _judge_is_whole(self) -> Self:
        told = self.reward.judge
        if self.judges_itself and (told.endpoint is not None or told.model_revision is not None):
            raise ValueError(
                "reward.judge.endpoint and model_revision belong to a judge with a model of its own, but "
                "reward.judge.model is not set, so the policy judges. Set it, or leave them out."
            )
        if self.new_prompts is not None and self.few_shot is not None:
            raise ValueError(
                "new_prompts are made up after prompts of a single turn, but few_shot puts turns before each. Leave "
                "out one of them."
            )
        return self

    @property
    def judges_itself(self) -> bool:
        return JUDGED in self.reward.names and self.reward.judge.model is None

    @property
    def trained(self) -> dict[str, TrainConfig]:
        first: dict[str, TrainConfig] = {"sft_train": self.sft_train} if self.demonstrations or self.eft else {}
        return first | super().trained

    @property
    def measured_by(self) -> RewardConfig:
        """What judges answers to held-out problems: a verifier, and not the policy."""
        return self.evaluate.reward or RewardConfig(parts={}, options={})

    @property
    def pair_measure(self) -> Measure:
        return OWN_PAIRS

    @property
    def ready_rewards(self) -> tuple[RewardConfig, ...]:
        others = self.reward.without(JUDGED) if self.judges_itself else self.reward
        return (self.measured_by,) if others is None else (others, self.measured_by)

    def pairs_of(self, setting: str, path: Path, apart: Mapping[str, Artifact]) -> Ranked:
        """A data set of people's pairs.

        Args:
            setting: the one that names it.
            apart: sets of problems whose prompts no pair may repeat, by name.
        """
        most = self.limit_eft if setting == EFT else self.limit_ranked
        return Ranked(setting, self.shown(path).reading, most, apart, self.overlap.rules)

    def own_judge(self, pairs: Artifact | None) -> PolicyJudge:
        """How a policy judges.

        Args:
            pairs: people's, on which it is measured.
        """
        return PolicyJudge(self.reward.judge.model_copy(update={"model_code": self.model_code}), self.engine, pairs)

    def made_up(self, config: NewPromptsConfig, held_out: Mapping[str, Artifact]) -> NewPrompts:
        """How new prompts are made up.

        Args:
            held_out: sets of problems whose prompts none may repeat, by name.
        """
        told = NewPrompts(config, self.engine, held_out, self.overlap.rules, self.system)
        own = config.model_copy(update={"model_code": self.model_code})
        return replace(told, config=own) if told.by_policy else told

    def verified(self, at: Place, problems: Artifact, pairs: Artifact) -> dict[str, Result]:
        """The stage that compares pairs with a verifier, if there are references for one."""
        if self.new_prompts is not None or self.measured_by.models:
            return {}
        return {"verify": verify_pairs(at, problems, pairs, Judging(self.measured_by, self.engine))}

    def _check_new_prompts(self, config: NewPromptsConfig) -> None:
        if problems_judged_by(self.reward)[0] != "prompts":
            raise RewardError(
                f"The reward {' + '.join(self.reward.names)} needs references, which made-up prompts do not have.",
                what_next="Leave out new_prompts, or let a judge or a reward model alone score the answers.",
            )
        if not self.made_up(config, {}).by_policy:
            check_asked(config, ROLE)

    def judged_by_policy(self, policy: Artifact) -> Judging:
        """How answers are scored in an iteration that begins with this policy."""
        if not self.judges_itself:
            return self.judging
        reward = self.reward.model_copy(update={"judge": self.own_judge(None).of(policy).config})
        return Judging(reward, self.engine, {JUDGED: policy})

    def input_files(self) -> dict[str, Path]:
        named = {"demonstrations": self.demonstrations, "eft": self.eft, "ranked": self.ranked}
        return super().input_files() | {name: path for name, path in named.items() if path is not None}

    def check_inputs(self) -> None:
        super().check_inputs()
        if self.demonstrations is not None:
            check_demonstrations(self, self.shown(self.demonstrations))
        if self.new_prompts is not None:
            self._check_new_prompts(self.new_prompts)
        for setting, path in ((EFT, self.eft), (RANKED, self.ranked)):
            for _ in self.pairs_of(setting, path, {}).read(Tally()) if path else ():
                pass
        if self.judges_itself:
            told = self.reward.judge
            context = self.engine.max_model_len or policy_tokenizer(self).context
            check_reply_fits("reward.judge", told.max_reasoning, told.reply_tokens, context)


@flow(
    name="self-rewarding",
    description=__doc__,
    flow_run_name=flow_run_name,
    persist_result=False,
    validate_parameters=True,
)
def self_rewarding(config: SelfRewarding, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run Self-Rewarding, or continue where an earlier start of the same run stopped."""
    return run_loop("Self-Rewarding", loop, config, on_drift)


def loop(run: Run, config: SelfRewarding) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems = prepare_problems(run, config)
    ranked, held_out = measured_pairs(run, config), config.unseen(problems)
    base = able_to_judge(run, config, base_policy(run, config), {**held_out, **ranked.prompts})
    judge = config.own_judge(ranked.pairs) if config.judges_itself else None
    measuring, iterations = begin(run, config, problems, base, judge)
    given, policy, limits = problems.artifact("train.parquet"), base, config.judge_limits
    made_up, reason = list[Artifact](), None
    for number in range(1, config.iterations + 1):
        judged = iterations[-1].stages.get("judge")
        if judged and (reason := useless_judge(judged, limits.entropy, limits.length)):
            break
        at, before = run.iteration(number), policy.artifact("policy")
        prompts, stages = given, dict[str, Result]()
        if config.new_prompts:
            how = config.made_up(config.new_prompts, {**held_out, **ranked.prompts})
            new = make_up_prompts(at, given, before, how, made_up)
            prompts, stages["prompts"] = new.artifact(PROBLEMS_FILE), new
            made_up.append(prompts)
        sampled = generate(at, before, {SAMPLES: prompts}, config.sampling)
        samples = sampled.artifact(SAMPLES)
        scored = score(at, prompts, samples, config.judged_by_policy(before))
        apart = Apart(config.held_out_pairs, ranked.prompts.get(RANKED))
        made = pair_judged(at, prompts, samples, scored.artifact(SCORES), apart)
        pairs, others = (made.artifact(name) for name in (PAIRS_FILE, f"{HELD_OUT}.parquet"))
        stages |= config.verified(at, prompts, pairs)
        policy, learned, unseen = learn_own_pairs(at, before, pairs, others, config.training)
        stages |= {"generate": sampled, "score": scored, "pair": made, **learned}
        if reason := add_iteration(measuring, iterations, policy, stages, {"validation": unseen}):
            break
    return conclude(measuring, iterations, reason)


@dataclass(frozen=True)
class MeasuredPairs:
    """People's pairs on which the policy as judge is measured, if there are any, and their prompts."""

    pairs: Artifact | None = None
    prompts: Mapping[str, Artifact] = field(default_factory=dict)


def measured_pairs(run: Run, config: SelfRewarding) -> MeasuredPairs:
    """Read the pairs on which the policy as judge is measured."""
    if config.ranked is None:
        return MeasuredPairs()
    read = ranked_pairs(run.place(RANKED), config.pairs_of(RANKED, config.ranked, {}))
    return MeasuredPairs(read.artifact(RANKED_FILE), {RANKED: read.artifact(PROMPTS)})


def able_to_judge(run: Run, config: SelfRewarding, base: Result, unseen: Mapping[str, Artifact]) -> Result:
    """Learn the demonstrations, and then both them and evaluation data, from the same base (section 3.1.1).

    Args:
        unseen: sets of problems whose prompts may not be learned, by name.
    """
    if config.eft is None:
        return demonstrated(run.place(SFT), config, base, unseen)[0]
    at, learned = run.place(EFT), run.place(SFT)
    pairs = ranked_pairs(at, config.pairs_of(EFT, config.eft, unseen))
    baseline, shown = demonstrated(run.place(BASELINE), config, base, unseen)
    policy = baseline.artifact("policy")
    judge = replace(config.own_judge(pairs.artifact(RANKED_FILE)), policy=policy)
    judged = measure_judge(at, judge, policy, None)
    examples = judgment_examples(learned, judge, judged, shown, config.sft_train.pack_to).artifact(EXAMPLES)
    return train(learned, base.artifact("policy"), examples, Training(config.sft_train, config.launch))
