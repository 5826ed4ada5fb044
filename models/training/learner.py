"""A policy in DeepSpeed that learns from its own fresh answers; what it learns is in groups.py and ppo.py."""

import math
import random
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin, PartialState
from peft.utils.integrations import dequantize_module_weight
from transformers import get_scheduler
from trl.models.utils import prepare_deepspeed
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model, pad

from data.errors import RunFailedError
from data.render import pad_token_id
from models.adapters.kinds import merger
from models.adapters.settings import BESIDE
from models.adapters.trainer import with_own_rate
from models.loading import unmerged
from models.on_policy import Normalizer, OnPolicyProgram
from models.training.common import ADAPTER, IGNORED, PATIENCE, adapter_of, deepspeed_config, load_policy
from models.training.policy_gradient import clipped, correction, kl_divergence, normalized
from models.training.rollout import Group

TAG = "state"  # DeepSpeed's name of a checkpoint in its folder
NOTHING = torch.empty(0)
WATCHED = 8  # one of so many answers tells the divergence from the reference


class DivergedError(RunFailedError):
    """Training cannot go on from here."""


class StateError(RunFailedError):
    """An earlier state cannot be gone on from."""


@dataclass
class Answer:
    """An answer to learn from. All tensors have one number for each of its tokens, and are empty until known.

    Attributes:
        sampled: log-probabilities in the engine that drew them.
        old, reference: the same in the trainer before any update, and in the reference policy.
        advantages: how much better each is than what was to be expected.
        values, returns, learned: with PPO, what the value model expected, what came instead, and 1 where it counts.
        mixed: with PPO-ptx, the weight of its log-likelihood; 0 in an answer.
    """

    prompt: list[int]
    tokens: list[int]
    sampled: torch.Tensor
    old: torch.Tensor = NOTHING
    reference: torch.Tensor = NOTHING
    advantages: torch.Tensor = NOTHING
    values: torch.Tensor = NOTHING
    returns: torch.Tensor = NOTHING
    learned: torch.Tensor = NOTHING
    mixed: torch.Tensor = NOTHING


class Learner(ABC):
    """The policy, its optimizer, and the reference that divergences are measured from.

    Attributes:
        numbers: what the next step depends on besides weights, optimizer and seed; kept in checkpoints.
    """

    needs_reference = True  # at every answer; otherwise a share of them tells the divergence

    def __init__(self, program: OnPolicyProgram, tokenizer: Any) -> None:
        train, launch = program.train, program.launch
        self.program, self.train, self.padding = program, train, pad_token_id(tokenizer)
        self.micro, self.numbers = launch.micro_batch_size, dict[str, float]()
        self.rows = train.batch_size // launch.processes  # of answers in an update of this process
        self.accumulated = self.rows * (1 + train.mixed) // self.micro
        config = deepspeed_config(launch, train.dtype == "bfloat16") | {
            "train_micro_batch_size_per_gpu": self.micro,
            "gradient_accumulation_steps": self.accumulated,
            "gradient_clipping": train.max_grad_norm,
        }
        plugin = DeepSpeedPlugin(hf_ds_config=config)  # before the model: ZeRO 3 shards it while loading
        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=PATIENCE))
        self.accelerator = Accelerator(deepspeed_plugin=plugin)
        # An adapter goes on over all iterations, on the weights that it was begun on.
        model = self._load(program.reference if train.adapter else program.policy, bare=train.beside)
        if launch.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})  # the other kind needs gradients at its input
        self.adapter = adapter_of(train, program.seed, drawn=False)
        if self.adapter:
            torch.manual_seed(program.seed)
            model = self.adapter.attach(model)
            if (before := unmerged(program.reference)) is not None:
                self.adapter.go_on(before)
        disable_dropout_in_model(model)  # the engine has none
        module = self._module(model, tokenizer)
        optimizer = self._new_optimizer(module)
        if self.adapter:
            self.adapter.ready(model)
            if self.adapter.rated:
                with_own_rate(optimizer, self.adapter, "times", lambda times, more: times * more)
        self.engine, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.engine.train()
        # Without its adapter, a policy that began without one is its reference.
        begun_bare = self.adapter is not None and unmerged(program.reference) is None
        self._reference = None if begun_bare else self._load_reference()
        self.rates, self._away = _learning_rates(program), 0.0
        if self.adapter:
            self.adapter.optimizer = self.engine.optimizer
            self.adapter.begin(len(self.rates))

    def _module(self, policy: Any, tokenizer: Any) -> Any:
        """What the engine trains: the policy, or the policy and more."""
        return policy

    @property
    def _policy(self) -> Any:
        """The policy in what the engine trains."""
        return self.engine.module

    def _load(self, folder: Path, bare: bool = False) -> Any:
        train, program = self.train, self.program
        code, choice = program.model_code, program.launch.attention
        model = load_policy(folder, train.dtype, train.quantize, code, choice, bare=bare)
        add_fused_lm_head(model, program.sampling.temperature, outputs=("log_probs", "entropy"))
        return model

    def _load_reference(self) -> Any:
        reference = self._load(self.program.reference).eval()
        if self.program.launch.zero_stage == 3:  # its weights are spread over devices, too
            return prepare_deepspeed(reference, self.accelerator)
        return reference.to(self.accelerator.device)

    def _new_optimizer(self, model: Any) -> torch.optim.Optimizer:
        """As Transformers sets it up: weight decay on matrices alone, on a GPU fused."""
        train = self.train
        learned = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        left_out = self.adapter.undecayed if self.adapter else ()
        decays = [
            len(getattr(weight, "ds_shape", weight.shape)) > 1  # under ZeRO 3 each has a part of it
            and not any(part in name for part in left_out)
            for name, weight in learned
        ]
        matrices = [weight for (_, weight), told in zip(learned, decays, strict=True) if told]
        others = [weight for (_, weight), told in zip(learned, decays, strict=True) if not told]
        groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        if train.optimizer == "rmsprop":
            return torch.optim.RMSprop(groups, lr=train.learning_rate)
        fused = torch.cuda.is_available() and self.program.launch.offload == "none"
        return torch.optim.AdamW(groups, lr=train.learning_rate, eps=train.adam_epsilon, fused=fused)

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The policy's weights by their names in a checkpoint, tied ones under each of theirs; an adapter is merged.

        One that cannot be merged follows, its tensors by their names after `BESIDE`.
        """
        from deepspeed.runtime.zero import GatheredParameters  # looks for an accelerator at once

        spread, policy = self.program.launch.zero_stage == 3, self._policy
        inner = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        own = {name for name, weight in inner.named_parameters() if weight.requires_grad and self.train.beside}
        adapted = "none yet"
        for name, layer in inner.named_modules(remove_duplicate=False):
            if name.startswith(f"{adapted}."):
                continue
            if merge := merger(layer):
                adapted = name
            held = layer.base_layer if merge else layer
            whole = list(layer.parameters() if merge else layer.parameters(recurse=False))
            with GatheredParameters(whole, enabled=spread):
                found = {kind: weight.detach() for kind, weight in held.named_parameters(recurse=False)}
                if self.train.quantize and "weight" in found:
                    found["weight"] = dequantize_module_weight(held).detach()
                if merge:
                    weight, bias = merge(layer, found["weight"], found.get("bias"))
                    found = {"weight": weight} | ({} if bias is None else {"bias": bias})
                for kind, weight in found.items():  # under ZeRO 3 they are gone again after this
                    full = f"{name}.{kind}".removeprefix(".")
                    if full not in own:
                        yield full.replace(".base_layer", ""), weight.clone() if spread else weight
        if self.adapter:
            yield from ((f"{BESIDE}{name}", tensor) for name, tensor in self.adapter.beside().items())

    @abstractmethod
    def prepare(self, groups: Sequence[Group]) -> tuple[list[Answer], list[list[float]], dict[str, float]]:
        """Look at a step's answers before any update.

        Returns:
            The answers, the advantage of each by group, and what there is to see.
        """

    def learn(self, step: int, answers: list[Answer], seen: dict[str, float]) -> dict[str, float]:
        """Update the policy by the answers of a step; return what there is to see.

        Args:
            seen: before any update, see `prepare`.

        Raises:
            DivergedError: the loss is not finite, the policy has left its base, or the engine's probabilities are not
                the trainer's.
        """
        drift, limit = seen["drift"], self.train.runaway_kl
        if limit is not None and self._away > limit:
            raise diverged(
                f"Before step {step + 1}, the KL divergence from the base was {self._away:.3g} nats per token, more "
                f"than train.runaway_kl, {limit:g}."
            )
        if drift > self.train.most_drift:
            raise DivergedError(
                f"In step {step + 1}, log-probabilities in the engine and in the trainer differ by {drift:.3g} "
                f"nats per token, more than train.most_drift, {self.train.most_drift:g}.",
                what_next="Use float32 for generate.dtype and train.dtype, or raise train.most_drift if the importance "
                "correction is to bear it; the run then goes on.",
            )
        told: defaultdict[str, float] = defaultdict(float)
        updates = len(answers) // self.rows
        for turn in range(int(self.train.epochs)):
            order = random.Random(f"{self.program.seed}/{step}/{turn}").sample(range(len(answers)), len(answers))
            for number in range(updates):
                chosen = [answers[index] for index in order[number * self.rows :][: self.rows]]
                done = (step * int(self.train.epochs) + turn) * updates + number
                for name, value in self._update(chosen, done, step).items():
                    told[name] += value
        count = updates * int(self.train.epochs)
        return {name: value / count for name, value in told.items()} | {"learning_rate": self.rates[done]}

    def _look(self, answers: list[Answer]) -> dict[str, float]:
        """Compute the log-probabilities before any update; return means over all tokens of all processes."""
        sums, apart = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            for batch in self._batches(answers):
                now, mask = self._first_pass(batch)
                for row, answer in enumerate(batch):
                    told = mask[row]
                    answer.old = now.log_probs[row][told].cpu()
                    away = (answer.old - answer.sampled).abs().sum()
                    sums += torch.stack([away, now.entropy[row][told].sum().cpu(), told.sum().cpu()]).double()
            for batch in self._batches(answers if self.needs_reference else answers[::WATCHED]):
                reference, mask = self._reference_log_probs(batch)
                for row, answer in enumerate(batch):
                    answer.reference = reference.log_probs[row][mask[row]].cpu()
                    divergence = kl_divergence(answer.old, answer.reference, "k3").sum()
                    further = (answer.old - answer.reference).sum()
                    apart += torch.stack([divergence, further, mask[row].sum().cpu()]).double()
        away, entropy, tokens, divergence, further, watched = self._total(torch.cat([sums, apart]))
        self._away = further / watched  # by k1, in which no single token counts for thousands
        return {"drift": away / tokens, "kl": divergence / watched, "entropy": entropy / tokens}

    def _first_pass(self, batch: list[Answer]) -> tuple[Any, torch.Tensor]:
        """The policy's log-probabilities before any update; whatever else is to be known of the answers goes there."""
        return self._log_probs(self.engine, batch)

    @abstractmethod
    def _losses(self, batch: list[Answer]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of each token, where tokens are, and what else there is to see of each.

        Returns:
            All of shape (answers, tokens).
        """

    def _size(self, tokens: float) -> tuple[Normalizer, float]:
        """How the losses of an update's tokens become one: see `normalized`."""
        return "tokens", tokens

    def _beside(self, update: int, tokens: float) -> list[Answer]:
        """Rows of other data that an update learns from.

        Args:
            update: its number, from the first step on.
            tokens: of its answers, over all processes, by which its loss is divided.
        """
        return []

    def _update(self, answers: list[Answer], number: int, step: int) -> dict[str, float]:
        """One optimizer step. Returns its loss, and the means of what there is to see.

        Args:
            number: of the update, from the first step on.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[number] * group.get("times", 1.0)
        (tokens,) = self._total(torch.tensor([float(sum(len(answer.tokens) for answer in answers))]))
        how, size = self._size(tokens)
        processes, seen = self.accelerator.num_processes, defaultdict[str, float](float)
        for batch in self._batches(answers + self._beside(number, tokens)):
            per_token, mask, watched = self._losses(batch)
            loss = normalized(per_token, mask, how, size)
            if self.adapter and (penalty := self.adapter.penalty()) is not None:
                loss = loss + penalty / (self.accumulated * processes)
            if not torch.isfinite(loss):
                raise diverged(f"The loss of step {step + 1} is {loss.item()}.")
            # DeepSpeed averages over accumulated batches and over devices; this loss is already a part of the whole.
            self.engine.backward(loss * self.accumulated * processes)
            updates = self.adapter if self.adapter and self.engine.is_gradient_accumulation_boundary() else None
            if updates:
                updates.before_update()
            self.engine.step()
            if updates:
                updates.after_update()
            norm = self.engine.get_global_grad_norm()  # of the last update
            if norm is not None and not math.isfinite(float(norm)):
                raise diverged(f"The gradient of step {step + 1} is not finite.")
            seen["loss"] += loss.item()
            for name, what in watched.items():
                seen[name] += ((what.detach() * mask).sum() / tokens).item()
        return dict(zip(seen, self._total(torch.tensor(list(seen.values()), dtype=torch.float64)), strict=True))

    def _corrected(
        self, batch: list[Answer], now: Any, mask: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The clipped loss of each token, weighted for what differs between engine and trainer."""
        train = self.train
        old, sampled, worth = (self._aligned(batch, mask, name) for name in ("old", "sampled", "advantages"))
        per_token, cut = clipped(now.log_probs, old, worth, train.clip_low, train.clip_high)
        weight, beyond = correction(old, sampled, train.correction, train.cap)
        return per_token * weight, {"clipped": cut, "corrected": beyond}

    def _batches(self, answers: list[Answer]) -> list[list[Answer]]:
        """Answers by forward pass, the longest first: little padding, and what does not fit in memory fails at once."""
        ordered = sorted(answers, key=lambda answer: -len(answer.prompt) - len(answer.tokens))
        return [ordered[first : first + self.micro] for first in range(0, len(ordered), self.micro)]

    def _log_probs(self, model: Any, batch: list[Answer]) -> tuple[Any, torch.Tensor]:
        """Log-probabilities and entropies of what follows each token, and where an answer's tokens are.

        Returns:
            The model's output, with fields of shape (answers, length − 1), and a mask of the same shape.
        """
        device = self.accelerator.device
        ids = [torch.tensor(answer.prompt + answer.tokens) for answer in batch]
        labels = [torch.tensor([IGNORED] * len(answer.prompt) + answer.tokens) for answer in batch]
        padded = pad(labels, padding_value=IGNORED).to(device)
        output = model(
            input_ids=pad(ids, padding_value=self.padding).to(device),
            attention_mask=pad([torch.ones_like(one) for one in ids], padding_value=0).to(device),
            labels=padded,
            use_cache=False,
            fused_lm_head=True,
        )
        return output, padded[:, 1:] != IGNORED

    def _reference_log_probs(self, batch: list[Answer]) -> tuple[Any, torch.Tensor]:
        if self._reference is not None:
            return self._log_probs(self._reference, batch)
        assert self.adapter is not None
        with self.adapter.disabled():
            return self._log_probs(self._policy, batch)

    def _aligned(self, batch: list[Answer], mask: torch.Tensor, name: str) -> torch.Tensor:
        """One number for each token of the answers, at their places; 0 elsewhere."""
        found = torch.zeros(mask.shape)
        for row, answer in enumerate(batch):
            begin = len(answer.prompt) - 1
            found[row, begin : begin + len(answer.tokens)] = getattr(answer, name)
        return found.to(mask.device)

    def _total(self, numbers: torch.Tensor) -> list[float]:
        """The sums over all processes."""
        found: list[float] = self.accelerator.reduce(numbers.to(self.accelerator.device), "sum").tolist()
        return found

    def save(self, folder: Path) -> None:
        """Write weights, of an adapter its own alone, and the optimizer's state."""
        partly = self.adapter is not None
        kept = {ADAPTER: (self.adapter.step, self.adapter.state())} if self.adapter else {}
        self.engine.save_checkpoint(str(folder), TAG, kept, save_latest=False, exclude_frozen_parameters=partly)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            StateError: it is not there.
        """
        found, kept = self.engine.load_checkpoint(str(folder), TAG, load_module_strict=self.adapter is None)
        if found is None:
            raise StateError(
                f"The optimizer's state in {folder} is not there or not complete.",
                what_next="Run the same command again with --on-drift rebuild, which makes the iterations again.",
            )
        if self.adapter:
            step, state = kept.get(ADAPTER, (0, {}))  # LoRA's have none from before there were other kinds
            self.adapter.begin(len(self.rates), step)
            self.adapter.load_state(state)

    def start_anew(self) -> None:
        """Forget the optimizer's step with zero gradients by which DeepSpeed sets it up (see `FreshOptimizer`)."""
        optimizer = self.optimizer
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        optimizer.state.clear()

    def write(self, folder: Path, tokenizer: Any) -> None:
        """Write the policy as a checkpoint that Transformers can load, or its adapter to the sibling folder."""
        whole = self.accelerator.get_state_dict(self.engine)
        if not self.accelerator.is_main_process:
            return
        weights = self._of_policy(whole)
        if self.adapter:
            self.adapter.save(folder.with_name(ADAPTER), weights)
        else:
            self._policy.save_pretrained(folder, state_dict=weights)
            tokenizer.save_pretrained(folder)

    def _of_policy(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The policy's weights among those of the engine."""
        return weights


def answers_of(groups: Sequence[Group]) -> list[Answer]:
    """The answers of groups, in order."""
    return [
        Answer(group.prompt, sample.token_ids, torch.tensor(drawn))
        for group in groups
        for sample, drawn in zip(group.samples, group.log_probs, strict=True)
    ]


def diverged(what: str, change: str = "Lower train.learning_rate or raise train.warmup") -> DivergedError:
    """The error of training that broke down, which says what is kept and what to change."""
    return DivergedError(
        f"{what} The last checkpoint and the policies of earlier iterations are kept.",
        what_next=f"{change}. With --on-drift accept, finished iterations stay.",
    )


def _learning_rates(program: OnPolicyProgram) -> list[float]:
    """The learning rate of every update of all steps."""
    train = program.train
    count = program.total_steps * int(train.epochs) * (train.problems * program.sampling.samples // train.batch_size)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=train.learning_rate)
    schedule = get_scheduler(train.schedule, optimizer, round(train.warmup * count), count)
    rates = []
    for _ in range(count):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates
