"""Settings of every kind of parameter-efficient fine-tuning. Importing this loads no torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from models.config_base import Config

Kind = Literal["lora", "adalora", "ia3", "bitfit", "diff-pruning", "prompt", "p-tuning", "prefix", "bottleneck"]
UNMERGED: tuple[Kind, ...] = ("prompt", "p-tuning", "prefix", "bottleneck")  # stay beside the weights
Targets = tuple[str, ...]
EMBEDDED: tuple[Kind, ...] = ("prompt", "p-tuning")  # of those, the ones that are a part of the prompt
# Embeddings and the output layer: trainers compute log-probabilities from the output layer's base weights.
NOT_ADAPTED = frozenset({"lm_head", "embed_tokens", "wte", "wpe", "embed_in", "embed_out", "score"})
SHARDED: tuple[Kind, ...] = ("lora",)  # kinds that work when ZeRO 3 spreads weights over devices
# Names of files and tensors of adapters.
WEIGHTS, NUMBERS = "adapter_model.safetensors", "prompt_embeddings"
BESIDE = "beside/"  # before the names of tensors that an engine gets and that are not weights of the base
LORA = ("rank", "alpha", "dropout", "targets", "dora", "rslora")  # settings of LoRA, which has no group of its own


class AdaLoRAConfig(Config):
    """AdaLoRA (arXiv 2303.10512): updates P·Λ·Q, whose ranks are reduced during training where they matter least.

    Ranks and the smoothing of importance are the paper's. The paper chooses the phases by task, near these shares.
    """

    rank: Annotated[int, Field(ge=1, description="Average rank of the updates in the end.")] = 8
    initial_rank: Annotated[int, Field(ge=2, description="Rank of every update at first; 1.5 times `rank`.")] = 12
    alpha: Annotated[int, Field(ge=1, description="Updates are scaled by alpha / initial_rank.")] = 16
    targets: Annotated[Targets, Field(min_length=1, description="Linear modules that get an update.")] = (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    )
    begin: Annotated[float, Field(ge=0, lt=1, description="Share of the steps before ranks are reduced.")] = 0.1
    end: Annotated[float, Field(gt=0, le=1, description="Share of the steps after which ranks stay.")] = 0.5
    interval: Annotated[int, Field(ge=1, description="Steps between reductions.")] = 10
    smoothing: Annotated[float, Field(gt=0, lt=1, description="β of the moving averages of importance.")] = 0.85
    orthogonality: Annotated[
        float, Field(ge=0, description="Weight γ of the penalty that keeps P and Q orthogonal.")
    ] = 0.1

    @model_validator(mode="after")
    def _ranks_fall(self) -> Self:
        if self.rank >= self.initial_rank:
            raise ValueError(
                f"rank {self.rank} is not below initial_rank {self.initial_rank}, so no rank would be reduced. Raise "
                "initial_rank, to about 1.5 times rank."
            )
        if self.begin >= self.end:
            raise ValueError(f"begin {self.begin:g} is not before end {self.end:g}: ranks would never be reduced.")
        return self


class IA3Config(Config):
    """IA³ (arXiv 2205.05638): learned vectors rescale keys, values, and the inner activations of feed-forward layers.

    The paper's learning rate is 3e-3.
    """

    targets: Annotated[Targets, Field(min_length=1, description="Linear modules that are rescaled.")] = (
        *("k_proj", "v_proj"),
        "down_proj",
    )
    feedforward: Annotated[
        Targets, Field(description="Those of `targets` whose input is rescaled; of the others, the output.")
    ] = ("down_proj",)

    @model_validator(mode="after")
    def _feedforward_is_rescaled(self) -> Self:
        if missing := [name for name in self.feedforward if name not in self.targets]:
            raise ValueError(f"feedforward names {', '.join(missing)}, which targets do not. Add them to targets.")
        return self


class BitFitConfig(Config):
    """BitFit (arXiv 2106.10199): only biases are trained. The paper's learning rates are 1e-4 to 1e-3."""

    targets: Annotated[Targets, Field(description="Modules whose biases are trained. Default: all that have any.")] = ()


class DiffPruningConfig(Config):
    """Diff pruning (arXiv 2012.07463): a sparse difference to the weights, learned with a relaxed L0 penalty.

    Each number of the difference has a hard-concrete gate. Then the largest numbers are kept, the rest become zero, and
    those kept are trained to the end. Density, range and penalty are the paper's.
    """

    density: Annotated[
        float, Field(gt=0, lt=1, description="Share of the numbers in the targeted modules that may differ in the end.")
    ] = 0.005
    targets: Annotated[
        Targets, Field(description="Linear modules that may differ. Default: all but the output layer.")
    ] = ()
    penalty: Annotated[float, Field(ge=0, description="Weight λ of the expected number of open gates.")] = 1.25e-7
    opening: Annotated[float, Field(description="Initial log α of the gates; high: nearly all are open.")] = 5.0
    gate_learning_rate: Annotated[
        float, Field(gt=0, description="Peak learning rate of the gates, which move on a scale of their own.")
    ] = 0.1
    groups: Annotated[
        bool, Field(description="Structured: one gate more for each matrix and each bias, multiplied with its own.")
    ] = False
    fixed: Annotated[
        float, Field(gt=0, lt=1, description="Last share of the steps, in which only the numbers kept are trained.")
    ] = 0.3


class PromptConfig(Config):
    """Prompt tuning (arXiv 2104.08691): vectors in front of every prompt, which begin as embeddings of random words."""

    tokens: Annotated[int, Field(ge=1, description="Virtual tokens in front of every prompt.")] = 20


class PTuningConfig(Config):
    """P-tuning (arXiv 2103.10385): vectors in front of every prompt, which a small network makes."""

    tokens: Annotated[int, Field(ge=1, description="Virtual tokens in front of every prompt.")] = 20
    encoder: Annotated[
        Literal["mlp", "lstm"], Field(description="The network: a perceptron, or a bidirectional LSTM as in the paper.")
    ] = "mlp"
    hidden: Annotated[int | None, Field(ge=1, description="Its width. Default: the model's.")] = None


class PrefixConfig(Config):
    """Prefix tuning (arXiv 2101.00190): keys and values in front of those of every layer.

    A perceptron makes them while they are trained (the paper's reparametrization); its width is the paper's.
    """

    tokens: Annotated[int, Field(ge=1, description="Virtual tokens in front of every prompt.")] = 20
    hidden: Annotated[
        int | None, Field(ge=1, description="Width of the perceptron; none: train keys and values themselves.")
    ] = 512


class BottleneckConfig(Config):
    """Bottleneck adapters (arXiv 1902.00751): a small network after attention and one after the feed-forward layer."""

    size: Annotated[int, Field(ge=1, description="Width of the bottleneck.")] = 64
    targets: Annotated[Targets, Field(min_length=1, description="Linear modules that are followed by an adapter.")] = (
        "o_proj",
        "down_proj",
    )


class AdapterConfig(Config):
    """Parameter-efficient fine-tuning. Rank, alpha, dropout and targets are LoRA's; every other kind has a group.

    LoRA: arXiv 2106.09685, and with `quantize` QLoRA (arXiv 2305.14314). Defaults: TRL's recipe for Llama 2.
    """

    kind: Annotated[
        Kind,
        Field(
            description="lora; adalora: LoRA whose ranks adapt; ia3: rescaling vectors; bitfit: biases alone; "
            "diff-pruning: a sparse difference; prompt, p-tuning, prefix: virtual tokens; bottleneck: small networks."
        ),
    ] = "lora"
    rank: Annotated[int, Field(ge=1, description="Rank r of the update B·A.")] = 8
    alpha: Annotated[int, Field(ge=1, description="The update is scaled by alpha / rank.")] = 16
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Dropout before A in supervised training; other training uses none.")
    ] = 0.05
    targets: Annotated[Targets, Field(min_length=1, description="Names of the linear modules that get an adapter.")] = (
        "q_proj",
        "v_proj",
    )
    dora: Annotated[
        bool, Field(description="DoRA (arXiv 2402.09353): train the norms of the merged weights' rows separately.")
    ] = False
    rslora: Annotated[bool, Field(description="rsLoRA (arXiv 2312.03732): scale by alpha / √rank, for high ranks.")] = (
        False
    )
    quantize: Annotated[bool, Field(description="QLoRA: hold the frozen weights in 4 bits (NF4).")] = False
    adalora: Annotated[AdaLoRAConfig, Field(description="Settings of kind adalora.")] = AdaLoRAConfig()
    ia3: Annotated[IA3Config, Field(description="Settings of kind ia3.")] = IA3Config()
    bitfit: Annotated[BitFitConfig, Field(description="Settings of kind bitfit.")] = BitFitConfig()
    diff_pruning: Annotated[DiffPruningConfig, Field(description="Settings of kind diff-pruning.")] = (
        DiffPruningConfig()
    )

    prompt: Annotated[PromptConfig, Field(description="Settings of kind prompt.")] = PromptConfig()
    p_tuning: Annotated[PTuningConfig, Field(description="Settings of kind p-tuning.")] = PTuningConfig()
    prefix: Annotated[PrefixConfig, Field(description="Settings of kind prefix.")] = PrefixConfig()
    bottleneck: Annotated[BottleneckConfig, Field(description="Settings of kind bottleneck.")] = BottleneckConfig()

    @property
    def tokens(self) -> int:
        """Virtual tokens in front of every prompt."""
        found: int = getattr(getattr(self, _group(self.kind), None), "tokens", 0)
        return found

    @property
    def wanted(self) -> tuple[str, Targets]:
        """The setting that names the modules to adapt, and their names; none: all that the kind can adapt, or none."""
        if self.kind == "lora":
            return "targets", self.targets
        if self.tokens:
            return "", ()
        return f"{_group(self.kind)}.targets", getattr(self, _group(self.kind)).targets

    @property
    def highest_rank(self) -> int | None:
        """The rank of new updates; None for a kind without ranks."""
        return {"lora": self.rank, "adalora": self.adalora.initial_rank}.get(self.kind)

    @property
    def idle(self) -> list[str]:
        """Settings of other kinds that were set, and have no effect."""
        fields = type(self).model_fields
        return [name for name in self._of_other_kinds() if getattr(self, name) != fields[name].default]

    def _of_other_kinds(self) -> list[str]:
        groups = [
            name for name in type(self).model_fields if name not in (*LORA, "kind", "quantize", _group(self.kind))
        ]
        return groups if self.kind == "lora" else [*LORA, *groups]

    @model_serializer(mode="wrap")
    def _what_counts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without settings of other kinds. LoRA's keep the fingerprints from before there were other kinds."""
        found: dict[str, Any] = handler(self)
        without = {*self._of_other_kinds(), *(name for name in ("dora", "rslora") if not found.get(name))}
        without |= {"kind"} if self.kind == "lora" else set()
        return {name: value for name, value in found.items() if name not in without}

    @model_validator(mode="after")
    def _four_bits_are_of_use(self) -> Self:
        if self.quantize and self.kind == "diff-pruning":
            raise ValueError(
                "Diff pruning trains a number for every weight, so quantize would save little and 4-bit weights cannot "
                "hold the result. Set quantize to false."
            )
        return self


class QLoRAConfig(AdapterConfig):
    """An adapter on 4-bit weights."""

    quantize: Annotated[bool, Field(description="QLoRA: hold the frozen weights in 4 bits (NF4).")] = True


def _group(kind: str) -> str:
    return kind.replace("-", "_")
