"""Configuration of the programs: what changes the result (sampling, training) and what does not (engine, launch).

The first enters a stage's fingerprint, the second does not. Importing this loads neither torch nor vLLM.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from data.judge_questions import Kind, longest_reply

Dtype = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "rmsprop"]
Schedule = Literal["linear", "cosine", "constant_with_warmup"]
ModelCode = Literal["refuse", "allow"]
CodeSetting = Annotated[
    ModelCode,
    Field(
        description="Python code that comes with the model: refuse it, or allow it to run here, with all that you may "
        "do. Few models need any."
    ),
]
ReasoningSetting = Annotated[
    Literal["leave", "keep"],
    Field(
        description="What a data set's messages hold of reasoning apart from their text: leave it out, or keep it in "
        "front of the text, as <think> … </think>."
    ),
]
RevisionSetting = Annotated[
    str | None, Field(min_length=1, description="Of a model on the hub: branch, tag or commit; none: its newest.")
]


def _typed(value: Any) -> Any:
    """The number or truth value that a text says: on the command line all values are texts."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return read if isinstance(read, bool | int | float) else value


TemplateOptions = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")],
        Annotated[bool | int | float | str, BeforeValidator(_typed)],
    ],
    Field(
        default_factory=dict,
        description="Options of the chat template, as in {enable_thinking: false}. They are kept with the policy.",
    ),
]


class Config(BaseModel):
    """Base of every configuration class: frozen; an unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _tilde_is_the_home_folder(cls, value: Any) -> Any:
        """In a path from a file or a form no shell has replaced it."""
        if isinstance(value, tuple):
            return tuple(_at_home(item) for item in value)
        return _at_home(value)


# A path, or a name on the hub.
ModelName = Annotated[str, AfterValidator(os.path.expanduser)]


def _at_home(value: Any) -> Any:
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value


class SamplingConfig(Config):
    """How completions are drawn from a policy."""

    samples: Annotated[int, Field(ge=1, description="Samples per problem.")] = 32
    temperature: Annotated[float, Field(ge=0, description="0 is greedy.")] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus sampling: keep this probability mass.")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="Sample from this many most likely tokens; 0 is all.")] = 40
    max_tokens: Annotated[int, Field(ge=1, description="Longest answer in tokens; longer ones are truncated.")] = 1024
    dtype: Annotated[
        Dtype,
        Field(
            description="Number format of the weights while generating. "
            "On a processor without AVX-512 BF16 or AMX, float32 is faster."
        ),
    ] = "bfloat16"


class AskedModelConfig(Config):
    """A model that is asked something, here or at an endpoint."""

    model: Annotated[
        ModelName | None, Field(description="The model: path or hub id, or with an endpoint its name there.")
    ] = None
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None
    endpoint: Annotated[
        str | None,
        Field(
            description="Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; none: the model "
            "runs here. The key is read from the environment variable OPENAI_API_KEY."
        ),
    ] = None
    temperature: Annotated[float, Field(ge=0, description="Of the model's replies; 0 is greedy.")] = 0.7
    dtype: Annotated[Dtype, Field(description="Number format of the model's weights, where it runs here.")] = "bfloat16"


class JudgeConfig(AskedModelConfig):
    """A model that judges answers. Three opinions and the rubric are those of Self-Rewarding (arXiv 2401.10020)."""

    kind: Annotated[
        Kind,
        Field(description="pointwise: each answer by itself, 0 to 5 points; pairwise: against others, 0 to 1."),
    ] = "pointwise"
    opinions: Annotated[
        int, Field(ge=1, description="Replies that are averaged: per answer, or per comparison and order.")
    ] = 3
    opponents: Annotated[
        int, Field(ge=2, multiple_of=2, description="Pairwise: other answers that each is compared with.")
    ] = 2
    max_reasoning: Annotated[int, Field(ge=1, description="Longest reasoning before the verdict, in characters.")] = 600
    max_tokens: Annotated[
        int | None,
        Field(ge=1, description="Longest reply in tokens; none: what the longest reasoning can take, 4 per character."),
    ] = None
    show_reference: Annotated[bool, Field(description="Show the judge a problem's reference, where it has one.")] = (
        False
    )
    passes_at: Annotated[
        float | None,
        Field(description="Answers of at least this value are correct; none: 4 points, or 0.75 of the comparisons."),
    ] = None

    @property
    def threshold(self) -> float:
        return {"pointwise": 4.0, "pairwise": 0.75}[self.kind] if self.passes_at is None else self.passes_at

    @property
    def reply_tokens(self) -> int:
        return self.max_tokens or longest_reply(self.max_reasoning)

    @model_validator(mode="after")
    def _replies_end_and_differ(self) -> Self:
        needed = longest_reply(self.max_reasoning)
        if self.reply_tokens < needed:
            raise ValueError(
                f"max_tokens {self.max_tokens} cuts off replies: with max_reasoning {self.max_reasoning} one can take "
                f"{needed} tokens. Lower max_reasoning, or leave max_tokens out."
            )
        if self.temperature == 0 and self.opinions > 1:
            raise ValueError(
                f"At temperature 0 all {self.opinions} opinions are the same. Set opinions to 1, or a temperature."
            )
        top = {"pointwise": 5, "pairwise": 1}[self.kind]
        if not 0 <= self.threshold <= top:
            raise ValueError(f"passes_at {self.passes_at} is out of reach: {self.kind} values go from 0 to {top}.")
        return self


class WritePromptsConfig(AskedModelConfig):
    """A model that writes the prompt to which a passage is the answer: instruction backtranslation (arXiv 2308.06259,
    section 2.2, whose temperature this is). There a model is fine-tuned for it; here any that follows instructions is
    asked.
    """

    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            description="What the model is told behind the passage; none: INSTRUCTION of "
            "data/prepare/written_prompts.py. Replies are held to JSON with the one key `instruction`.",
        ),
    ] = None
    max_tokens: Annotated[int, Field(ge=16, description="Longest reply in tokens; a longer one is left out.")] = 256
    shortest: Annotated[int, Field(ge=1, description="Passages of fewer characters are left out.")] = 200
    longest: Annotated[int, Field(ge=1, description="Passages of more characters are left out.")] = 8000

    @model_validator(mode="after")
    def _some_passage_fits(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"No passage has at least {self.shortest} and at most {self.longest} characters.")
        return self


class EngineConfig(Config):
    """Where and how fast vLLM runs. Nothing here changes the result."""

    tensor_parallel_size: Annotated[int, Field(ge=1, description="Devices one copy of the model is spread over.")] = 1
    max_model_len: Annotated[
        int | None, Field(ge=16, description="Context in tokens; none: the model's own, or what prompts need.")
    ] = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, description="Share of GPU memory to take.")] = 0.9
    cpu_kv_cache_gib: Annotated[int, Field(ge=1, description="Memory for the KV cache on the CPU, in GiB.")] = 1
    max_num_seqs: Annotated[int, Field(ge=1, description="Sequences decoded together.")] = 256
    enforce_eager: Annotated[
        bool | None, Field(description="Skip graph compilation; none: on the CPU only, where it does not pay.")
    ] = None
    shard_size: Annotated[int, Field(ge=1, description="Requests per shard, the unit of resuming.")] = 4096


class AdapterConfig(Config):
    """LoRA (arXiv 2106.09685), and with `quantize` QLoRA (arXiv 2305.14314). Defaults: TRL's recipe for Llama 2."""

    rank: Annotated[int, Field(ge=1, description="Rank r of the update B·A.")] = 8
    alpha: Annotated[int, Field(ge=1, description="The update is scaled by alpha / rank.")] = 16
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Dropout in front of A in supervised training; pairs are trained without.")
    ] = 0.05
    targets: Annotated[
        tuple[str, ...], Field(min_length=1, description="Names of the linear modules that get an update.")
    ] = ("q_proj", "v_proj")
    quantize: Annotated[bool, Field(description="Hold the frozen weights in 4 bits (NF4): QLoRA.")] = False


class QLoRAConfig(AdapterConfig):
    """An adapter around weights of 4 bits."""

    quantize: Annotated[bool, Field(description="Hold the frozen weights in 4 bits (NF4): QLoRA.")] = True


class TrainConfig(Config):
    """Hyperparameters of any training. All of them change the result."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the examples.")] = 8.0
    batch_size: Annotated[int, Field(ge=1, description="Examples per optimiser step, over all devices.")] = 64
    optimizer: Annotated[Optimizer, Field(description="Optimiser.")] = "adamw"
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay.")] = 0.0
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of the steps in which the rate rises.")] = 0.1
    max_grad_norm: Annotated[float, Field(gt=0, description="Gradients are clipped to this norm.")] = 1.0
    dtype: Annotated[Dtype, Field(description="bfloat16: mixed precision; float32: full.")] = "bfloat16"
    adapter: Annotated[
        AdapterConfig | None, Field(description="Train a LoRA adapter and merge it; none: train all weights.")
    ] = None

    @property
    def quantize(self) -> bool:
        return self.adapter is not None and self.adapter.quantize


class SupervisedConfig(TrainConfig):
    """Hyperparameters of supervised training on answer tokens."""

    pack_to: Annotated[
        int | None, Field(ge=16, description="Pack short examples into rows of this many tokens; none: a row each.")
    ] = None
    loss_on: Annotated[
        Literal["last", "all"],
        Field(description="Which of a conversation's answers are learned: its last, or those before it as well."),
    ] = "last"


class PreferenceConfig(TrainConfig):
    """Hyperparameters of training on pairs, with the loss of DPO (arXiv 2305.18290) and SPIN (arXiv 2401.01335)."""

    loss: Annotated[
        Literal["logistic", "hinge"], Field(description="logistic: -log sigmoid(m); hinge: max(0, 1 - m).")
    ] = "logistic"
    beta: Annotated[float, Field(gt=0, description="Scale of the log-ratios; λ in SPIN.")] = 0.1
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5e-7
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 2.0
    optimizer: Annotated[Optimizer, Field(description="Optimiser.")] = "rmsprop"


class RewardTrainConfig(TrainConfig):
    """Hyperparameters of training a reward model on pairs with the loss of Bradley and Terry.

    Rate, batch, single pass and schedule are those of InstructGPT (arXiv 2203.02155, appendix C.2), which overfitted in
    a second pass; the warm-up is that of Llama 2 (arXiv 2307.09288, section 3.2.2).
    """

    margin: Annotated[
        float,
        Field(
            ge=0, description="How far apart the rewards of every pair are to be: −log σ(r_chosen − r_rejected − m)."
        ),
    ] = 0.0
    centering: Annotated[
        float,
        Field(ge=0, description="Weight of (r_chosen + r_rejected)², which keeps rewards about zero; 0: left out."),
    ] = 0.01
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 9e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Pairs per optimiser step, over all devices.")] = 64
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of the steps in which the rate rises.")] = 0.03


class ScoringConfig(Config):
    """How a reward model is run. The size of a batch changes no result beyond rounding."""

    batch_tokens: Annotated[int, Field(ge=1, description="Tokens put through at a time, padding included.")] = 16_384
    dtype: Annotated[Dtype, Field(description="Number format of the weights while scoring.")] = "bfloat16"


class RewardModelConfig(ScoringConfig):
    """A reward model in use: it judges answers."""

    path: Annotated[
        ModelName | None, Field(description="Path or hub id of a reward model, such as one that was trained.")
    ] = None
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None
    passes_at: Annotated[
        float, Field(description="Reward from which on an answer counts as correct; centred rewards lie about 0.")
    ] = 0.0
    max_length: Annotated[
        int | None, Field(ge=1, description="Longest prompt with its answer, in tokens; none: the model's context.")
    ] = None


class LaunchConfig(Config):
    """How training is spread over devices. Nothing here changes the result beyond rounding."""

    processes: Annotated[int, Field(ge=1, description="Processes, one per device.")] = 1
    zero_stage: Annotated[int, Field(ge=0, le=3, description="DeepSpeed ZeRO stage.")] = 0
    micro_batch_size: Annotated[int, Field(ge=1, description="Examples per device and forward pass.")] = 8
    gradient_checkpointing: Annotated[bool, Field(description="Recompute activations: less memory, slower.")] = False
    checkpoint_steps: Annotated[int, Field(ge=1, description="Steps between checkpoints to resume from.")] = 200
    log_steps: Annotated[int, Field(ge=1, description="Steps between lines of metrics.jsonl.")] = 10
    evaluations: Annotated[
        int, Field(ge=0, description="How often held-out rows are measured while training, last at its end; 0: never.")
    ] = 4


class GenerateJob(Config):
    """One set of problems to be answered by one sampling setting, into one folder of shards."""

    problems: Path
    output: Path
    sampling: SamplingConfig
    seed: int
    shard_size: int


class ScoreJob(Config):
    """Samples to be scored: for each of their shards a file of Score rows of the same name, in the same order."""

    problems: Path
    samples: Path
    output: Path


class PairScoreJob(Config):
    """Pairs of which both sides are to be scored: a file of PairReward rows in the same order."""

    pairs: Path
    output: Path


class GenerateProgram(Config):
    """Everything `models.generate` is told."""

    policy: Path
    policy_digest: str
    model_code: ModelCode = "refuse"
    jobs: list[GenerateJob]
    engine: EngineConfig


class JudgeProgram(Config):
    """Everything `models.asking.judge` is told. `policy` is the folder of the judge, None where it is at an endpoint.

    `truncated`: samples that were cut off are judged as they are; else they are wrong, and nobody looks at them.
    """

    judge: JudgeConfig
    policy: Path | None
    jobs: list[ScoreJob]
    engine: EngineConfig
    seed: int
    grader: str
    truncated: bool = False


class WritePromptsProgram(Config):
    """Everything `models.asking.write_prompts` is told. `policy` is the model's folder, None where at an endpoint."""

    writer: WritePromptsConfig
    policy: Path | None
    passages: Path
    output: Path
    engine: EngineConfig
    seed: int


class LaunchedProgram(Config):
    """What a program is told that is started on one device or several."""

    launch: LaunchConfig


class TrainProgram(LaunchedProgram):
    """Everything `models.training.supervised` is told. The gold answers of `held_out` (Problem rows) are measured."""

    policy: Path
    model_code: ModelCode = "refuse"
    examples: list[Path]
    held_out: Path | None = None
    output: Path
    seed: int
    train: SupervisedConfig


class MergeProgram(Config):
    """Everything `models.training.merge` is told. Without a `dtype`, the policy's own number format is kept.

    `reward`: the adapter is that of a reward model, whose head came with it.
    """

    policy: Path
    model_code: ModelCode = "refuse"
    adapter: Path
    output: Path
    dtype: Dtype | None = None
    quantize: bool = False
    reward: bool = False


class LikelihoodProgram(LaunchedProgram):
    """Everything `models.training.likelihood` is told.

    `outputs` has one file for each of `pairs`, and `gold_outputs` one for each of `gold`, which has Problem rows.
    """

    policy: Path
    model_code: ModelCode = "refuse"
    pairs: list[Path] = []
    outputs: list[Path] = []
    gold: list[Path] = []
    gold_outputs: list[Path] = []
    dtype: Dtype
    quantize: bool


class PreferenceProgram(LaunchedProgram):
    """Everything `models.training.preference` is told. `reference` has the likelihoods of `pairs`, file by file.

    `held_out` has pairs that are measured meanwhile, and `held_out_reference` their likelihoods.
    """

    policy: Path
    model_code: ModelCode = "refuse"
    pairs: list[Path]
    reference: list[Path]
    held_out: Path | None = None
    held_out_reference: Path | None = None
    output: Path
    seed: int
    train: PreferenceConfig


class RewardTrainProgram(LaunchedProgram):
    """Everything `models.training.reward_model` is told. `held_out` has pairs that are measured meanwhile."""

    policy: Path
    model_code: ModelCode = "refuse"
    pairs: list[Path]
    held_out: Path | None = None
    output: Path
    seed: int
    train: RewardTrainConfig


class RewardScoreProgram(Config):
    """Everything `models.reward_score` is told. `grader` goes into the Score rows of `jobs`."""

    model: Path
    model_code: ModelCode = "refuse"
    jobs: list[ScoreJob] = []
    pair_jobs: list[PairScoreJob] = []
    scoring: ScoringConfig
    passes_at: float = 0.0
    max_length: int | None = None
    grader: str = ""


def gradient_accumulation(train: TrainConfig, launch: LaunchConfig) -> int:
    """Forward passes per optimiser step and device.

    Raises:
        ValueError: the batch does not divide evenly.
    """
    together = launch.processes * launch.micro_batch_size
    if train.batch_size % together:
        raise ValueError(
            f"train.batch_size {train.batch_size} is not a multiple of launch.processes × launch.micro_batch_size = "
            f"{launch.processes} × {launch.micro_batch_size} = {together}. Change one of the three."
        )
    return train.batch_size // together
