"""The command `autodidact chat`: a conversation with a policy, or with two side by side.

In a terminal, turns are lines, and lines that begin with a slash are commands. Otherwise the whole input is one
message, and only answers go to the output.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data.errors import AutodidactError, UsageError
from data.render import PromptTooLongError
from data.text import encodable, visible
from flows.commands.parser import CommandParser
from models.config import SamplingConfig
from models.speaker import Speaker
from tasks.history.checkpoint import Checkpoint, find_checkpoint
from tasks.stage.environment import prepare

HELP = """\
/reset          forget the conversation
/system TEXT    forget it, and set the system message; without TEXT, use none
/save FILE      append the conversation to a JSONL file, a row of `messages` for each policy
/quit           leave; Ctrl-D does, too
Ctrl-C ends an answer."""


@dataclass
class Talker:
    """A policy in a conversation: what it was told and what it said."""

    checkpoint: Checkpoint
    sampling: SamplingConfig
    speaker: Speaker
    messages: list[dict[str, str]] = field(default_factory=list)

    def reset(self, system: str | None) -> None:
        self.messages = [{"role": "system", "content": system}] if system else []


def chat(arguments: list[str]) -> int:
    """Talk with the best policy of a run, another of its policies (RUN/base, RUN/iter-1), or a model in a folder.

    Answers are drawn as the run drew them, unless told otherwise. A message can also come from a pipe.
    """
    parser = CommandParser("chat", chat.__doc__)
    parser.add_argument("checkpoint", metavar="RUN_OR_PATH")
    parser.add_argument("--against", metavar="RUN_OR_PATH", help="a second policy, such as base, that answers as well")
    parser.add_argument("--system", metavar="TEXT", help="system message (default: the run's)")
    parser.add_argument("--temperature", type=float, metavar="N", help="sampling temperature; 0 is greedy")
    parser.add_argument("--top-p", type=float, metavar="N", help="keep this probability mass")
    parser.add_argument("--top-k", type=int, metavar="N", help="sample from the k most likely tokens; 0: from all")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of every answer (default: none)")
    told = parser.parse_args(arguments)
    prepare(told.runs_dir, dry_run=True)
    first = find_checkpoint(told.runs_dir, told.checkpoint)
    found = [first, find_checkpoint(told.runs_dir, told.against, beside=first)] if told.against else [first]
    samplings = [_sampling(checkpoint, told) for checkpoint in found]
    in_terminal = sys.stdin.isatty()
    for checkpoint in found:
        print(f"{checkpoint.name}: {checkpoint.about}", file=sys.stdout if in_terminal else sys.stderr, flush=True)
    talkers = [
        Talker(checkpoint, sampling, Speaker(checkpoint.folder, sampling.dtype, checkpoint.model_code))
        for checkpoint, sampling in zip(found, samplings, strict=True)
    ]
    conversation = Conversation(talkers, told.system, told.seed)
    if not in_terminal:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        return conversation.answer_once(sys.stdin.read().strip("\n"))
    conversation.in_terminal()
    return 0


def _sampling(checkpoint: Checkpoint, told: Any) -> SamplingConfig:
    """The run's sampling with the flags over it.

    Raises:
        UsageError: a flag is out of range.
    """
    given = {name: getattr(told, name) for name in ("temperature", "top_p", "top_k", "max_tokens")}
    changed = checkpoint.sampling.model_dump() | {name: v for name, v in given.items() if v is not None}
    try:
        return SamplingConfig.model_validate(changed)
    except ValidationError as error:
        wrong = error.errors()[0]
        flag = str(wrong["loc"][0]).replace("_", "-")
        raise UsageError(f"--{flag}: {wrong['msg']}.", what_next="See autodidact chat --help.") from None


class Conversation:
    """One or two policies that get the same turns, each with its own answers as history."""

    def __init__(self, talkers: list[Talker], system: str | None, seed: int | None) -> None:
        self.talkers, self.seed = talkers, seed
        for talker in talkers:
            talker.reset(system or talker.checkpoint.system)

    def answer_once(self, message: str) -> int:
        """Answer one message, without decoration unless two policies answer."""
        if not message.strip():
            raise UsageError("the input is empty.", what_next="Write a message to it, or call this in a terminal.")
        self._turn(message)
        return 0

    def in_terminal(self) -> None:
        """Read turns and commands until the end of the input."""
        with suppress(ImportError):
            import readline  # noqa: F401  input() then has a history, and keys that edit the line
        print("/help lists commands, Ctrl-D leaves.")
        commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: print(HELP),
            "/reset": self._reset,
            "/system": self._system,
            "/save": self._save,
        }
        for line in _lines():
            command, _, rest = line.partition(" ")
            if command == "/quit":
                return
            try:
                if command in commands:
                    commands[command](rest.strip())
                elif line.startswith("/"):
                    print(f"There is no command {visible(command)}. Commands:\n{HELP}")
                else:
                    self._turn(line)
            except PromptTooLongError as error:
                print(f"{error} /reset forgets them.")
            except (AutodidactError, OSError) as error:
                print(visible(str(error)))

    def _turn(self, message: str) -> None:
        """Have everyone answer. A policy that says nothing, or cannot, has not heard the message."""
        for talker in self.talkers:
            if len(self.talkers) > 1:
                print(f"\n{talker.checkpoint.name}:")
            turn = [*talker.messages, {"role": "user", "content": encodable(message)}]
            said = self._stream(talker, turn)
            if said:
                talker.messages = [*turn, {"role": "assistant", "content": said}]

    def _stream(self, talker: Talker, messages: list[dict[str, str]]) -> str:
        said = ""
        with closing(talker.speaker.answer(messages, talker.sampling, self.seed)) as pieces:
            try:
                for piece in pieces:
                    said += piece
                    print(visible(piece), end="", flush=True)
            except KeyboardInterrupt:
                print(" … (stopped)", end="")
        print(flush=True)
        return said

    def _reset(self, _: str) -> None:
        for talker in self.talkers:
            talker.reset(next((m["content"] for m in talker.messages if m["role"] == "system"), None))
        print("The conversation is forgotten.")

    def _system(self, text: str) -> None:
        for talker in self.talkers:
            talker.reset(text or None)
        print("The conversation is forgotten; the system message is " + ("set." if text else "empty."))

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("/save needs a file.", what_next="Write /save FILE.")
        rows = [
            {"messages": t.messages, "policy": t.checkpoint.name, "folder": str(t.checkpoint.folder.absolute())}
            for t in self.talkers
        ]
        file = Path(name).expanduser()
        with file.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        print(f"Appended to {visible(str(file))}.")


def _lines() -> Iterator[str]:
    """Lines that the user enters. Ctrl-C discards a line; the end of the input ends them."""
    while True:
        try:
            line = input("> ").strip()
        except KeyboardInterrupt:
            print("\nCtrl-D leaves.")
            continue
        except EOFError:
            print()
            return
        if line:
            yield line
