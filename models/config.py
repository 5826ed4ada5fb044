"""Configuration of the programs: what changes the result (sampling, training) and what does not (engine, launch).

The former is part of a stage's fingerprint, the latter is not. Importing this loads neither torch nor vLLM.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from data.judge_questions import Kind, longest_reply
from data.prepare.new_prompts import KEYWORDS
from data.sandbox.isolation import Level
from models.adapters.settings import UNMERGED, AdapterConfig
from models.config_base import Config

Dtype = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "rmsprop"]
Schedule = Literal["linear", "cosine", "constant_with_warmup"]
ModelCode = Literal["refuse", "allow"]
CodeSetting = Annotated[
    ModelCode,
    Field(
        description="Python code that comes with the model: refuse it, or allow it to run here with your permissions. "
        "Few models need it."
    ),
]
ReasoningSetting = Annotated[
    Literal["leave", "keep"],
    Field(
        description="Reasoning that a data set's messages store separately from their text: leave it out, or keep it "
        "before the text as <think> … </think>."
    ),
]
RevisionSetting = Annotated[
    str | None, Field(min_length=1, description="Branch, tag or commit of a model on the hub; if not set, the newest.")
]


def _typed(value: Any) -> Any:
    """Convert a string to the number or Boolean it spells: on the command line every value is a string."""
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
        description="Options of the chat template, such as {enable_thinking: false}; saved with the policy.",
    ),
]


# A path or a hub id.
ModelName = Annotated[str, AfterValidator(os.path.expanduser)]


class SamplingConfig(Config):
    """How completions are drawn from a policy."""

    samples: Annotated[int, Field(ge=1, description="Samples per problem.")] = 32
    temperature: Annotated[float, Field(ge=0, description="Sampling temperature; 0 is greedy.")] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus sampling: keep this probability mass.")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="Sample from the k most likely tokens; 0: from all.")] = 40
    max_tokens: Annotated[int, Field(ge=1, description="Longest answer, in tokens; longer ones are truncated.")] = 1024
    dtype: Annotated[
        Dtype,
        Field(
            description="Number format of the weights while generating. "
            "On a CPU without AVX-512 BF16 or AMX, float32 is faster."
        ),
    ] = "bfloat16"


class AskedModelConfig(Config):
    """A model that gets requests, run here or served at an endpoint."""

    model: Annotated[
        ModelName | None, Field(description="Path or hub id of the model, or its name at the endpoint.")
    ] = None
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None
    endpoint: Annotated[
        str | None,
        Field(
            description="Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; if not set, the "
            "model runs here. The key comes from the environment variable OPENAI_API_KEY."
        ),
    ] = None
    temperature: Annotated[float, Field(ge=0, description="Sampling temperature of replies; 0 is greedy.")] = 0.7
    dtype: Annotated[Dtype, Field(description="Number format of the weights if the model runs here.")] = "bfloat16"


class JudgeConfig(AskedModelConfig):
    """A model that judges answers. The rubric and three opinions come from Self-Rewarding (arXiv 2401.10020)."""

    kind: Annotated[
        Kind,
        Field(description="pointwise: each answer alone, 0 to 5 points; pairwise: against other answers, 0 to 1."),
    ] = "pointwise"
    opinions: Annotated[int, Field(ge=1, description="Replies to average per answer, or per comparison and order.")] = 3
    opponents: Annotated[
        int, Field(ge=2, multiple_of=2, description="Pairwise: how many other answers each is compared with.")
    ] = 2
    max_reasoning: Annotated[int, Field(ge=1, description="Longest reasoning before the verdict, in characters.")] = 600
    max_tokens: Annotated[
        int | None,
        Field(ge=1, description="Longest reply, in tokens; if not set, 4 per character of max_reasoning."),
    ] = None
    rubric: Annotated[
        str | None,
        Field(
            min_length=1,
            description="What the judge is told to do. Default: see data/judge_questions.py. Replies are JSON: "
            '"reasoning", then "score" from 0 to 5, or "better": "A", "B" or "tie".',
        ),
    ] = None
    show_reference: Annotated[bool, Field(description="Show the judge a problem's reference, if it has one.")] = False
    passes_at: Annotated[
        float | None,
        Field(description="Lowest value that counts as correct; if not set, 4 points, or 0.75 of the comparisons."),
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
                f"max_tokens {self.max_tokens} cuts off replies: with max_reasoning {self.max_reasoning} a reply can "
                f"take {needed} tokens. Lower max_reasoning, or leave max_tokens unset."
            )
        if self.temperature == 0 and self.opinions > 1:
            raise ValueError(
                f"At temperature 0 all {self.opinions} opinions are the same. Set opinions to 1, or raise temperature."
            )
        top = {"pointwise": 5, "pairwise": 1}[self.kind]
        if not 0 <= self.threshold <= top:
            raise ValueError(f"passes_at {self.passes_at} is out of reach: {self.kind} values range from 0 to {top}.")
        return self


class ReadModelConfig(Config):
    """A language model that runs here and whose probabilities are read."""

    model: Annotated[ModelName | None, Field(description="Path or hub id of the model.")] = None
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None

    @property
    def asked(self) -> AskedModelConfig:
        """The same as a model that is asked."""
        told: dict[str, Any] = {name: getattr(self, name) for name in ("model", "model_code", "model_revision")}
        return AskedModelConfig.model_validate(told | {"temperature": 0.0})

    @model_validator(mode="after")
    def _says_more_of_a_model_only(self) -> Self:
        if self.model is None and (self.model_revision is not None or self.model_code != "refuse"):
            raise ValueError(
                "model_revision and model_code belong to a model of its own, but model is not set. Set it, or leave "
                "them out."
            )
        return self


class LabelerConfig(ReadModelConfig):
    """A model that labels which of two answers is better, as in RLAIF (arXiv 2309.00267, section 3.1).

    Its choice is not sampled: the probability of each choice is read, so a label is soft.
    """

    model: Annotated[
        ModelName | None,
        Field(description="Path or hub id of the labeler. Default: the policy that the run starts from."),
    ] = None
    dtype: Annotated[Dtype, Field(description="Number format of the labeler's weights.")] = "bfloat16"
    max_reasoning: Annotated[
        int, Field(ge=0, description="Longest reasoning before the choice, in characters, written greedily; 0: none.")
    ] = 600
    rubric: Annotated[
        str | None,
        Field(
            min_length=1,
            description="What the labeler is told to do. Default: see data/label_questions.py. Replies are JSON: "
            '"reasoning", unless max_reasoning is 0, then "better": 1 or 2.',
        ),
    ] = None
    principles: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(description="Principles of which each comparison is told one, drawn by the seed (Constitutional AI)."),
    ] = ()
    clamp: Annotated[
        float | None,
        Field(
            gt=0,
            lt=0.5,
            description="Lowest probability of a label, and the highest one's distance from 1; Constitutional AI has "
            "0.4 after reasoning. Default: labels stay as they are.",
        ),
    ] = None


class WritePromptsConfig(AskedModelConfig):
    """A model that writes the prompt a passage answers: instruction backtranslation (arXiv 2308.06259, section 2.2).

    The temperature is the paper's. The paper fine-tunes a model for this; here any instruction-tuned model is asked.
    """

    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Instruction after the passage; if not set, INSTRUCTION in data/prepare/written_prompts.py. "
            "Replies are constrained to JSON with the single key `instruction`.",
        ),
    ] = None
    max_tokens: Annotated[int, Field(ge=16, description="Longest reply, in tokens; longer ones are dropped.")] = 256
    shortest: Annotated[int, Field(ge=1, description="Passages with fewer characters are dropped.")] = 200
    longest: Annotated[int, Field(ge=1, description="Passages with more characters are dropped.")] = 8000

    @model_validator(mode="after")
    def _some_passage_fits(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"No passage can have at least {self.shortest} and at most {self.longest} characters.")
        return self


class NewPromptsConfig(AskedModelConfig):
    """A model that makes up new prompts, as in Self-Rewarding Language Models (arXiv 2401.10020, section 2.2)."""

    temperature: Annotated[float, Field(ge=0, description="Sampling temperature of replies; 0 is greedy.")] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus sampling: keep this probability mass.")] = 0.9
    count: Annotated[int, Field(ge=1, description="Prompts to ask for in each iteration, before the filters.")] = 5000
    examples: Annotated[int, Field(ge=1, description="Examples that a request shows of the given prompts.")] = 6
    own_examples: Annotated[
        int, Field(ge=0, description="Examples of those made up before; at first of the given.")
    ] = 2
    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Instruction after the examples; if not set, TASK in data/prepare/new_prompts.py. Replies are "
            "constrained to JSON with the single key `instruction`.",
        ),
    ] = None
    max_tokens: Annotated[int, Field(ge=16, description="Longest reply, in tokens; longer ones are dropped.")] = 256
    shortest: Annotated[int, Field(ge=1, description="Prompts with fewer characters are dropped.")] = 15
    longest: Annotated[int, Field(ge=1, description="Prompts with more characters are dropped.")] = 1000
    keywords: Annotated[
        tuple[str, ...], Field(description="Prompts with one of these words are dropped. Default: Self-Instruct's.")
    ] = KEYWORDS
    near_duplicates: Annotated[
        float, Field(gt=0, le=1, description="Likeness to another prompt at which one is dropped.")
    ] = 0.7

    @model_validator(mode="after")
    def _some_prompt_fits(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"No prompt can have at least {self.shortest} and at most {self.longest} characters.")
        return self


class EngineConfig(Config):
    """Where and how fast the engine runs. Nothing here changes the result."""

    tensor_parallel_size: Annotated[int, Field(ge=1, description="Devices that share one copy of the model.")] = 1
    max_model_len: Annotated[
        int | None,
        Field(ge=16, description="Context length, in tokens; if not set, the model's, or what prompts need."),
    ] = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, description="Share of GPU memory to use.")] = 0.9
    cpu_kv_cache_gib: Annotated[int, Field(ge=1, description="Memory for the KV cache on the CPU, in GiB.")] = 1
    max_num_seqs: Annotated[int, Field(ge=1, description="Most sequences decoded together.")] = 256
    enforce_eager: Annotated[
        bool | None,
        Field(description="Skip graph compilation; if not set, only on the CPU, where it does not pay off."),
    ] = None
    shard_size: Annotated[int, Field(ge=1, description="Requests per shard; generation resumes by shard.")] = 4096


class TrainConfig(Config):
    """Hyperparameters of all training. Each of them changes the result."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the examples.")] = 8.0
    batch_size: Annotated[int, Field(ge=1, description="Examples per optimizer step, over all devices.")] = 64
    optimizer: Annotated[Optimizer, Field(description="Optimizer.")] = "adamw"
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay.")] = 0.0
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of steps spent on learning-rate warmup.")] = 0.1
    max_grad_norm: Annotated[float, Field(gt=0, description="Gradients are clipped to this norm.")] = 1.0
    dtype: Annotated[Dtype, Field(description="bfloat16: mixed precision; float32: full.")] = "bfloat16"
    adapter: Annotated[
        AdapterConfig | None, Field(description="Train an adapter in place of all weights. Default: all weights.")
    ] = None

    @property
    def quantize(self) -> bool:
        return self.adapter is not None and self.adapter.quantize

    @property
    def beside(self) -> bool:
        """Whether an adapter is trained that stays beside the weights."""
        return self.adapter is not None and self.adapter.kind in UNMERGED


class SupervisedConfig(TrainConfig):
    """Hyperparameters of supervised training on answer tokens."""

    pack_to: Annotated[
        int | None,
        Field(ge=16, description="Pack short examples into rows of this many tokens; if not set, a row each."),
    ] = None
    loss_on: Annotated[
        Literal["last", "all"],
        Field(description="Which answers of a conversation to learn: the last, or all."),
    ] = "last"


class PreferenceConfig(TrainConfig):
    """Hyperparameters of training on pairs, with the loss of DPO (arXiv 2305.18290) and SPIN (arXiv 2401.01335)."""

    loss: Annotated[
        Literal["logistic", "hinge"], Field(description="logistic: -log sigmoid(m); hinge: max(0, 1 - m).")
    ] = "logistic"
    beta: Annotated[float, Field(gt=0, description="Scale of the log-ratios; λ in SPIN.")] = 0.1
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5e-7
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 2.0
    optimizer: Annotated[Optimizer, Field(description="Optimizer.")] = "rmsprop"


class RewardTrainConfig(TrainConfig):
    """Hyperparameters of training a reward model on pairs with the loss of Bradley and Terry.

    Rate, batch, single pass and schedule are those of InstructGPT (arXiv 2203.02155, appendix C.2), which overfitted in
    a second pass; the warmup is that of Llama 2 (arXiv 2307.09288, section 3.2.2).
    """

    margin: Annotated[
        float,
        Field(ge=0, description="Margin m between the rewards of a pair: −log σ(r_chosen − r_rejected − m)."),
    ] = 0.0
    centering: Annotated[
        float,
        Field(ge=0, description="Weight of (r_chosen + r_rejected)², which keeps rewards around zero; 0: off."),
    ] = 0.01
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 9e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Pairs per optimizer step, over all devices.")] = 64
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of steps spent on learning-rate warmup.")] = 0.03


class ScoringConfig(Config):
    """How a reward model is run. The batch size changes nothing but rounding."""

    batch_tokens: Annotated[int, Field(ge=1, description="Tokens per batch, including padding.")] = 16_384
    dtype: Annotated[Dtype, Field(description="Number format of the weights while scoring.")] = "bfloat16"


class DirectConfig(ReadModelConfig, ScoringConfig):
    """A language model that scores answers directly, as in d-RLAIF (arXiv 2309.00267, section 3.2.2).

    The expected score among 1 to 10, by the probabilities of these replies, becomes a reward from −1 to 1.
    """

    rubric: Annotated[
        str | None,
        Field(
            min_length=1,
            description="What the model is told to do. Default: see data/label_questions.py. A reply is JSON: "
            '"score": 1 to 10.',
        ),
    ] = None
    passes_at: Annotated[float, Field(ge=-1, le=1, description="Lowest reward that counts as correct.")] = 0.0
    max_length: Annotated[
        int | None, Field(ge=1, description="Longest question with its reply, in tokens; if not set, the context.")
    ] = None


class RewardModelConfig(ScoringConfig):
    """A reward model that judges answers."""

    path: Annotated[
        ModelName | None,
        Field(description="Path or hub id of a reward model, such as the result of `autodidact reward-model`."),
    ] = None
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None
    passes_at: Annotated[
        float, Field(description="Lowest reward that counts as correct; centered rewards lie around 0.")
    ] = 0.0
    max_length: Annotated[
        int | None,
        Field(ge=1, description="Longest prompt with its answer, in tokens; if not set, the model's context."),
    ] = None


Offload = Literal["none", "optimizer", "all"]
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]


class LaunchConfig(Config):
    """How training is spread over devices. Nothing here changes the result, except for rounding."""

    processes: Annotated[int, Field(ge=1, description="Processes, one per device.")] = 1
    zero_stage: Annotated[int, Field(ge=0, le=3, description="DeepSpeed ZeRO stage.")] = 0
    micro_batch_size: Annotated[int, Field(ge=1, description="Examples per device and forward pass.")] = 8
    offload: Annotated[
        Offload,
        Field(
            description="What DeepSpeed keeps in the CPU's memory: less GPU memory, slower. optimizer: its state, from "
            "ZeRO 1 on; all: weights as well, with ZeRO 3."
        ),
    ] = "none"
    attention: Annotated[
        Attention,
        Field(
            description="Implementation of attention. auto: FlashAttention on a GPU in bfloat16 if flash-attn is "
            "installed, else SDPA; packed rows then example by example, without a square mask."
        ),
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool | None,
        Field(
            description="Recompute activations: less memory, slower. Default: if the estimate without exceeds the GPU."
        ),
    ] = None
    checkpoint_steps: Annotated[int, Field(ge=1, description="Steps between checkpoints to resume from.")] = 200
    log_steps: Annotated[int, Field(ge=1, description="Steps between lines of metrics.jsonl.")] = 10
    evaluations: Annotated[
        int,
        Field(ge=0, description="How often held-out rows are measured during training, the last at its end; 0: never."),
    ] = 4

    @model_validator(mode="after")
    def _offloads_what_is_spread(self) -> Self:
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(
                f"launch.offload {self.offload} needs launch.zero_stage {least} or more; it is {self.zero_stage}. "
                "Raise it (one process is enough), or offload less."
            )
        return self


class UntilKept(Config):
    """When a problem has enough answers, and the reward that tells.

    Attributes:
        kept: good and distinct answers that are enough.
        min_reward: what makes an answer good.
        reward, grader: a reward that is a function: its name, and name and version.
        workers: processes that score.
        max_error_share: share of answers on which the reward may fail.
        scores: folder for the scores, named by the content of the samples' files.
    """

    kept: int
    min_reward: float
    reward: str
    grader: str
    isolation: Level
    workers: int
    max_error_share: float
    scores: Path


class GenerateJob(Config):
    """One set of problems to answer with one sampling configuration, into one folder of shards.

    With `until`, the answers to a problem end once there are enough, and `sampling.samples` is the most.
    """

    problems: Path
    output: Path
    sampling: SamplingConfig
    seed: int
    shard_size: int
    until: UntilKept | None = None


class ScoreJob(Config):
    """Samples to score. Each shard gets a file of Score rows with the same name and order.

    `decided`: how many samples there are was decided by scores made ahead, which therefore stand, whatever they are.
    """

    problems: Path
    samples: Path
    output: Path
    decided: bool = False


class PairScoreJob(Config):
    """Pairs to score, both answers of each, into a file of PairReward rows in the same order."""

    pairs: Path
    output: Path


class GenerateProgram(Config):
    """Configuration of the program `models.generate`."""

    policy: Path
    policy_digest: str
    model_code: ModelCode = "refuse"
    jobs: list[GenerateJob]
    engine: EngineConfig


class JudgeProgram(Config):
    """Configuration of the program `models.asking.judge`. `policy` is the judge's folder, None if it is at an endpoint.

    `truncated`: judge truncated samples as they are; otherwise they are wrong without being judged.
    """

    judge: JudgeConfig
    policy: Path | None
    jobs: list[ScoreJob]
    engine: EngineConfig
    seed: int
    grader: str
    truncated: bool = False


class LabelProgram(Config):
    """Configuration of the program `models.asking.label`.

    Attributes:
        policy: the labeler's folder.
        problems, samples: answers to compare; each shard gets a file of Label rows of the same name in `output`.
    """

    labeler: LabelerConfig
    policy: Path
    problems: Path
    samples: Path
    output: Path
    engine: EngineConfig
    seed: int


class WritePromptsProgram(Config):
    """Configuration of the program `models.asking.write_prompts`. `policy`: the model's folder, None at an endpoint."""

    writer: WritePromptsConfig
    policy: Path | None
    passages: Path
    output: Path
    engine: EngineConfig
    seed: int


class NewPromptsProgram(Config):
    """Configuration of the program `models.asking.new_prompts`.

    Attributes:
        policy: the model's folder, None at an endpoint.
        seeds: problems whose prompts are the examples.
    """

    writer: NewPromptsConfig
    policy: Path | None
    seeds: Path
    output: Path
    engine: EngineConfig
    seed: int


class LaunchedProgram(Config):
    """Configuration of a program that runs on one or more devices."""

    launch: LaunchConfig


class TrainProgram(LaunchedProgram):
    """Configuration of `models.training.supervised`, which measures the gold answers of `held_out` (Problem rows)."""

    policy: Path
    model_code: ModelCode = "refuse"
    examples: list[Path]
    held_out: Path | None = None
    output: Path
    seed: int
    train: SupervisedConfig


class MergeProgram(Config):
    """Configuration of the program `models.training.merge`. Without a `dtype`, the policy keeps its number format.

    `reward`: the adapter belongs to a reward model and includes its head. `adapter`: None writes the weights alone.
    """

    policy: Path
    model_code: ModelCode = "refuse"
    adapter: Path | None
    output: Path
    dtype: Dtype | None = None
    quantize: bool = False
    reward: bool = False


class LikelihoodProgram(LaunchedProgram):
    """Configuration of the program `models.training.likelihood`.

    `outputs` has one file for each of `pairs`, and `gold_outputs` one for each of `gold`, which has Problem rows.
    """

    policy: Path
    model_code: ModelCode = "refuse"
    pairs: list[Path] = Field(default_factory=list)
    outputs: list[Path] = Field(default_factory=list)
    gold: list[Path] = Field(default_factory=list)
    gold_outputs: list[Path] = Field(default_factory=list)
    dtype: Dtype
    quantize: bool


class PreferenceProgram(LaunchedProgram):
    """Configuration of `models.training.preference`. `reference` has the likelihoods of `pairs`, file by file.

    `held_out` has pairs to measure during training, and `held_out_reference` their likelihoods.
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
    """Configuration of `models.training.reward_model`. `held_out` has pairs to measure during training."""

    policy: Path
    model_code: ModelCode = "refuse"
    pairs: list[Path]
    held_out: Path | None = None
    output: Path
    seed: int
    train: RewardTrainConfig


class RewardScoreProgram(Config):
    """Configuration of the program `models.training.reward_score`. `grader` goes into the Score rows of `jobs`."""

    model: Path
    model_code: ModelCode = "refuse"
    jobs: list[ScoreJob] = Field(default_factory=list)
    pair_jobs: list[PairScoreJob] = Field(default_factory=list)
    scoring: ScoringConfig
    passes_at: float = 0.0
    max_length: int | None = None
    grader: str = ""


class DirectScoreProgram(Config):
    """Configuration of the program `models.training.direct_score`. `grader` goes into the Score rows of `jobs`."""

    model: Path
    model_code: ModelCode = "refuse"
    rubric: str | None  # without a default, which tells it from a reward model's
    jobs: list[ScoreJob] = Field(default_factory=list)
    scoring: ScoringConfig
    passes_at: float = 0.0
    max_length: int | None = None
    grader: str = ""


def gradient_accumulation(train: TrainConfig, launch: LaunchConfig, setting: str = "train") -> int:
    """Forward passes per optimizer step and device.

    Args:
        setting: the one that holds `train`, for the message.

    Raises:
        ValueError: the batch does not divide evenly.
    """
    together = launch.processes * launch.micro_batch_size
    if train.batch_size % together:
        raise ValueError(
            f"{setting}.batch_size {train.batch_size} is not a multiple of launch.processes × launch.micro_batch_size "
            f"= {launch.processes} × {launch.micro_batch_size} = {together}. Change one of the three."
        )
    return train.batch_size // together
