"""Policy gradients on a policy's own fresh answers, with the engine inside the training program.

    python -m models.training.on_policy CONFIG.json    # several processes: by torch.distributed.run, see launch.py

A step draws a group of answers to each of some problems with the policy's weights of the moment, scores them, and
updates the policy. What a step does follows from its number, the seed, the weights and the optimizer's state alone:
splitting the steps into iterations, or resuming, changes nothing.
"""

import gc
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

from accelerate.utils import gather_object

from data.render import check_room, prompt_token_ids, stop_token_ids
from data.rows import Problem, Rollout
from data.scoring import Tally, check_errors
from data.storage import read_rows, write_rows
from models.engine import Engine, Served, start
from models.loading import room_of
from models.on_policy import ROLLOUTS, GroupsConfig, OnPolicyProgram, PPOConfig
from models.progress import Progress
from models.rounds import ENOUGH_TO_TELL
from models.training.common import (
    CHECKPOINTS,
    COMPLETE,
    enter,
    last_checkpoint,
    leave,
    lines_up_to,
    padded_tokenizer,
)
from models.training.groups import GroupLearner
from models.training.learner import DivergedError, Learner, StateError
from models.training.ppo import PPOLearner
from models.training.rewards import Rewards, rewards
from models.training.rollout import Drawn, Rollouts

STATE, PLACE = "state", "place.json"


def learn(program: OnPolicyProgram) -> None:
    """Make the steps of an iteration; write the policy, and the state that the next iteration goes on from.

    Raises:
        DivergedError: training cannot go on.
    """
    with rewards(program.judged_by) as ready:
        _Run(program, ready).to_the_end()


class _Run:
    """The steps of one iteration."""

    def __init__(self, program: OnPolicyProgram, rewards: Rewards) -> None:
        self.program, self.rewards, self.folder = program, rewards, program.output.parent
        self.tokenizer = padded_tokenizer(program.policy, program.model_code)
        problems = list(read_rows(Problem, program.problems))
        prompts = {problem.id: prompt_token_ids(self.tokenizer, problem.messages) for problem in problems}
        context = room_of(program.policy, program.model_code, program.engine.max_model_len)
        for name, prompt in prompts.items():
            check_room(len(prompt), program.sampling.max_tokens, context, name)
        self.longest = min(context, max(map(len, prompts.values())) + program.sampling.max_tokens)
        kind = PPOLearner if isinstance(program.train, PPOConfig) else GroupLearner
        self.learner: Learner = kind(program, self.tokenizer)
        accelerator = self.learner.accelerator
        place = accelerator.process_index, accelerator.num_processes
        self.rollouts = Rollouts(program, problems, prompts, stop_token_ids(self.tokenizer), place)
        self.main, self.position, self.flat = accelerator.is_main_process, 0, 0

    def to_the_end(self) -> None:
        program = self.program
        step = self._begin()
        last = program.first_step + program.train.steps
        progress = Progress("train", last, "step", done=step)
        engine: Engine | None = None
        while step < last:
            engine = engine or self._engine()
            told = self._step(engine, step)
            step += 1
            self._check_rewards(step == last)
            if self.main:
                with (self.folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, **told}) + "\n")
                progress.update(step, f"reward {told['reward']:.3f}")
            if step % program.launch.checkpoint_steps == 0 and step < last:
                self._keep(self.folder / CHECKPOINTS / f"checkpoint-{step}", step)
        self._keep(self.folder / STATE, step)
        self.learner.write(program.output, self.tokenizer)

    def _engine(self) -> Engine:
        """The engine, started after the trainer: before it, vLLM would set up a group of one process."""
        program, adapter = self.program, self.program.train.adapter
        served = Served(
            program.policy,
            program.sampling.dtype,
            self.longest,
            program.seed,
            program.model_code,
            beside_a_trainer=True,
            adapter=adapter.kind if adapter and program.train.beside else None,
            virtual_tokens=adapter.tokens if adapter else 0,
        )
        return start(served, program.engine)

    def _step(self, engine: Engine, step: int) -> dict[str, float]:
        """Draw, score and learn; return what there is to see, over all processes."""
        begin, scored = time.monotonic(), self.rewards.seconds
        engine.load(self.learner.weights())
        loaded = time.monotonic()
        drawn = self.rollouts.draw(engine, self.rewards, self.position)
        engine.sleep()
        sampled = time.monotonic()
        self.position = drawn.position
        told = self._of_all(drawn)
        if isinstance(self.program.train, GroupsConfig):
            self.flat = self.flat + 1 if told["without_spread"] == 1 else 0
            if self.flat >= self.program.train.patience:
                self._check_rewards(at_last=True)
                raise self._without_spread(step)
        else:
            del told["without_spread"]  # a group is one answer
        self._write_rollouts(step + 1, drawn)  # nothing that was paid for is lost
        answers, advantages, seen = self.learner.prepare(drawn.groups)
        self._write_rollouts(step + 1, drawn, advantages)
        told |= seen | self.learner.learn(step, answers, seen)
        trained = time.monotonic()
        engine.wake()
        scoring = self.rewards.seconds - scored
        sampling = sampled - loaded - scoring
        told |= {"tokens_per_second": told.pop("drawn_tokens") / max(sampling, 1e-9)}
        return told | {
            "seconds/sampling": sampling,
            "seconds/scoring": scoring,
            "seconds/training": trained - sampled,
            "seconds/other": loaded - begin + time.monotonic() - trained,
        }

    def _write_rollouts(self, step: int, drawn: Drawn, advantages: Sequence[list[float]] = ()) -> None:
        """Write the answers of all processes, before anything is learned from them."""
        learned = {id(group): worths for group, worths in zip(drawn.groups, advantages, strict=False)}
        rows = gather_object([row for group in drawn.seen for row in group.rollouts(step, learned.get(id(group)))])
        if self.main:
            write_rows(Rollout, self._rollouts_file(step), rows)

    def _rollouts_file(self, step: int) -> Path:
        return self.folder / ROLLOUTS / f"step-{step:06d}.parquet"

    def _of_all(self, drawn: Drawn) -> dict[str, float]:
        """Means over the answers of all processes."""
        answers = [sample for group in drawn.seen for sample in group.samples]
        rewards = [reward for group in drawn.seen for reward in group.rewards]
        graded = [reward for reward in rewards if reward == reward]  # noqa: PLR0124  not NaN
        correct = sum(score.verdict == "correct" for group in drawn.seen for score in group.scores)
        mine = {
            "groups": len(drawn.seen),
            "flat": sum(not group.has_spread for group in drawn.seen),
            "answers": len(answers),
            "graded": len(graded),
            "reward": sum(graded),
            "correct": correct,
            "failed": sum(score.value is None for group in drawn.seen for score in group.scores),
            "tokens": sum(len(answer.token_ids) for answer in answers),
            "truncated": sum(answer.finish_reason != "stop" for answer in answers),
        }
        all_of_them = gather_object([mine])
        total = {name: sum(one[name] for one in all_of_them) for name in mine}
        count = total["answers"]
        return {
            "reward": total["reward"] / max(total["graded"], 1),
            "correct": total["correct"] / count,
            "not_graded": total["failed"] / count,
            "without_spread": total["flat"] / total["groups"],
            "length": total["tokens"] / count,
            "truncated": total["truncated"] / count,
            "drawn_tokens": total["tokens"],
        }

    def _check_rewards(self, at_last: bool) -> None:
        """Refuse to go on if rewards failed on too many answers of all processes since the program began.

        Raises:
            TooManyErrorsError: they did.
        """
        tally = Tally()
        for of_process in gather_object([self.rewards.tally]):
            tally.add(of_process)
        if at_last or tally.samples >= ENOUGH_TO_TELL:
            check_errors(tally, self.program.judged_by.max_error_share, "the last checkpoint is kept")

    def _without_spread(self, step: int) -> DivergedError:
        return DivergedError(
            f"In {self.flat} steps in a row, up to step {step + 1}, all answers to a problem got the same reward. "
            "There is nothing to learn.",
            what_next="If none is correct, use easier problems or a stronger --model; if all are, harder ones. "
            "More generate.samples or a higher generate.temperature make answers differ.",
        )

    def _begin(self) -> int:
        """Go on from the last checkpoint of this iteration, or from the state of the one before. Return the step."""
        program = self.program
        resumed = last_checkpoint(self.folder / CHECKPOINTS)
        state = resumed or program.state
        if state is None:
            self.learner.start_anew()
            step = program.first_step
        else:
            told = json.loads((state / PLACE).read_text())
            self._require_the_same(told, program.first_step if resumed is None else None)
            self.learner.load(state)
            step, self.flat = told["step"], told["flat"]
            self.learner.numbers |= told["numbers"]
            self.position = told["positions"][self.rollouts.place[0]]
        self._remember_scores(step)
        if resumed and self.main:
            print(f"Resumed from {resumed.name}", flush=True)
        if self.main:
            journal = self.folder / "metrics.jsonl"
            journal.write_text("".join(lines_up_to(journal, step)))
            (self.folder / ROLLOUTS).mkdir(exist_ok=True)
        self.learner.accelerator.wait_for_everyone()
        return int(step)

    def _remember_scores(self, step: int) -> None:
        """Keep the scores that an earlier attempt gave after this step; its files are written anew."""
        for made in range(step + 1, self.program.first_step + self.program.train.steps + 1):
            if (file := self._rollouts_file(made)).exists():
                self.rewards.known |= {(row.problem_id, row.index): row for row in read_rows(Rollout, file)}

    def _require_the_same(self, told: dict[str, Any], first_step: int | None) -> None:
        """Refuse a state of another number of processes or ZeRO stage, or of another step than this iteration's first.

        Raises:
            StateError: it is one.
        """
        launch = self.program.launch
        now = {"processes": launch.processes, "zero_stage": launch.zero_stage}
        if first_step is not None:
            now["step"] = first_step
        changed = [f"{name} was {told[name]}, is {value}" for name, value in now.items() if told[name] != value]
        if changed:
            raise StateError(
                f"The optimizer's state was written under other settings: {'; '.join(changed)}.",
                what_next="Give the launch.processes, launch.zero_stage and train.steps of before, or another --run.",
            )

    def _keep(self, folder: Path, step: int) -> None:
        """Write a checkpoint; older ones are removed once it is complete."""
        positions, launch = gather_object([self.position]), self.program.launch
        if self.main:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed process has left
        self.learner.accelerator.wait_for_everyone()
        self.learner.save(folder)
        if self.main:
            told = {"step": step, "flat": self.flat, "positions": positions, "numbers": self.learner.numbers}
            told |= {"processes": launch.processes, "zero_stage": launch.zero_stage}
            (folder / PLACE).write_text(json.dumps(told) + "\n")
            if folder.name != STATE:
                (folder / COMPLETE).touch()
            for other in folder.parent.glob("checkpoint-*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        self.learner.accelerator.wait_for_everyone()


if __name__ == "__main__":
    enter()
    learn(OnPolicyProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
