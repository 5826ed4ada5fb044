"""The program in whose process a candidate runs, inside the sandbox. Nothing it says is believed.

It gets the code over one pipe. As a script it runs it and ends. Else it then answers over two others: a name of the
code, a call, an attribute, with plain data. Whatever the code does to this process changes only what the code itself
would answer. Run: python candidate.py LIMITS CODE [QUESTIONS ANSWERS], all but the first being descriptors.
"""

import json
import resource
import sys
from itertools import count
from typing import Any

sys.path.insert(0, __file__.rpartition("/")[0])

from values import Channel, decode, encode, said


def main() -> None:
    for name, value in json.loads(sys.argv[1]).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    sys.set_int_max_str_digits(0)
    code, *conversation = map(int, sys.argv[2:])
    with open(code, "rb") as file:
        told = json.loads(file.readline())
    sys.argv = ["candidate.py"]
    if not conversation:
        exec(compile(told, "candidate.py", "exec"), {"__name__": "__main__"})
        return
    channel = Channel(*conversation)
    namespace: dict[str, Any] = {"__name__": "candidate"}
    try:
        exec(compile(told, "candidate.py", "exec"), namespace)
    except BaseException as error:
        channel.send({"raised": said(error)})
        return
    channel.send({"value": True})
    answer(channel, namespace)


def answer(channel: Channel, namespace: dict[str, Any]) -> None:
    """Answer until the other side is gone."""
    things: dict[int, Any] = {}
    numbers = count()

    def keep(value: Any) -> int:
        number = next(numbers)
        things[number] = value
        return number

    while True:
        try:
            asked = channel.receive()
        except EOFError:
            return
        try:
            result = _do(asked, namespace, things)
            reply = {"value": encode(result, keep)}
        except BaseException as error:
            reply = {"raised": said(error)}
        channel.send(reply)


def _do(asked: dict[str, Any], namespace: dict[str, Any], things: dict[int, Any]) -> Any:
    if "name" in asked:
        return _Kept(namespace[asked["name"]])
    thing = things[asked["of"]]
    if isinstance(thing, _Kept):
        thing = thing.value

    def kept(number: int) -> Any:
        held = things[number]
        return held.value if isinstance(held, _Kept) else held

    if "get" in asked:
        return getattr(thing, asked["get"])
    if "set" in asked:
        setattr(thing, asked["set"], decode(asked["value"], kept))
        return None
    return thing(*decode(asked["arguments"], kept), **decode(asked["named"], kept))


class _Kept:
    """A thing that is spoken of by number, although it might be plain data."""

    def __init__(self, value: Any) -> None:
        self.value = value


if __name__ == "__main__":
    main()
