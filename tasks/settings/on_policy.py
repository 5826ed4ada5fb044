"""The settings of loops that learn from a policy's own fresh answers."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from data.measures import MeasureName
from models.on_policy import OnPolicyConfig, OnPolicyEngineConfig, OnPolicyLaunchConfig, OnPolicySamplingConfig
from tasks.rollouts.learn import Learning
from tasks.rollouts.proxy import Proxy
from tasks.rollouts.rewards import MODELLED
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact
from tasks.stage.run import Result


class OnPolicyLoopConfig(LoopConfig):
    """Settings that every such loop has."""

    measures: ClassVar[tuple[MeasureName, ...]] = ("sampled_accuracy", "accuracy")

    iterations: Annotated[int, Field(ge=1, description="Iterations; the policy is measured after each.")] = 4
    generate: Annotated[OnPolicySamplingConfig, Field(description="How answers are drawn.")] = OnPolicySamplingConfig()
    engine: Annotated[OnPolicyEngineConfig, Field(description="How vLLM runs.")] = OnPolicyEngineConfig()
    launch: Annotated[OnPolicyLaunchConfig, Field(description="How training runs.")] = OnPolicyLaunchConfig()
    train: Annotated[OnPolicyConfig, Field(description="How the policy is trained.")] = OnPolicyConfig()

    def learning(self, reference: Artifact, scorers: Mapping[str, Artifact], mix: Artifact | None = None) -> Learning:
        """Settings of the stages that learn.

        Args:
            reference: the policy that divergences are measured from.
            scorers: the models that score, by the name of their reward.
            mix: rows that PPO learns beside its answers.
        """
        told = self.train, self.generate, self.reward, self.engine, self.launch
        return Learning(*told, reference, scorers, self.iterations, mix)

    @property
    def has_proxy(self) -> bool:
        return MODELLED in self.reward.names and self.measured_by != self.reward

    def proxy(self, scorers: Mapping[str, Artifact], problems: Result) -> Proxy | None:
        """The reward model that is optimized, beside the reward that measures; None if there is none, or no other.

        Args:
            scorers: the models that score, by the name of their reward.
        """
        validation = self.held_out(problems, "validation").get("validation")
        if validation is None or not self.has_proxy:
            return None
        return Proxy(self.reward.model, scorers[MODELLED], self.engine, validation)

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        train, samples = self.train, self.generate.samples
        if train.problems * samples % train.batch_size:
            raise ValueError(
                f"A step has train.problems × generate.samples = {train.problems} × {samples} = "
                f"{train.problems * samples} answers, which is not a multiple of train.batch_size, {train.batch_size}. "
                "Change one of the three."
            )
        if train.problems % self.launch.processes:
            raise ValueError(
                f"train.problems is {train.problems}, not a multiple of launch.processes, {self.launch.processes}, "
                "over which they are spread. Change one of them."
            )
        return self
