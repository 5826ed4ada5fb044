"""Requests to an OpenAI-compatible server, a bounded number at a time."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from data.errors import RunFailedError
from models.asking.request import Ask, Form, Reply, Request
from models.config import AskedModelConfig
from models.engine.meter import Meter

IN_FLIGHT = 16  # requests at a time
RETRIES = 4  # per failed request; the client backs off
TIMEOUT_SECONDS = 300.0
NEWER_LIMIT = "max_completion_tokens"


class EndpointError(RunFailedError):
    """The endpoint cannot be used at all."""


def at_endpoint(config: AskedModelConfig, form: Form, meter: Meter | None = None) -> Ask:
    """Return a function that sends requests to the endpoint of `config`.

    A request that fails on its own, or times out, gets an empty reply with the reason.

    Args:
        meter: counts replies and tokens.

    Raises:
        EndpointError: on a request: the endpoint cannot be reached, or refuses the key or the model.
    """
    import openai

    client = openai.OpenAI(
        base_url=config.endpoint,
        api_key=os.environ.get("OPENAI_API_KEY") or "none",  # a local server needs none
        max_retries=RETRIES,
        timeout=TIMEOUT_SECONDS,
    )
    schema = {"name": form.name, "strict": True, "schema": form.schema}
    settings: dict[str, Any] = {
        "model": config.model,
        "temperature": config.temperature,
        **({"top_p": form.top_p} if form.top_p < 1 else {}),
        "response_format": {"type": "json_schema", "json_schema": schema},
    }

    limits = ["max_tokens"]  # its name; newer models know only another

    def create(asked: dict[str, Any]) -> Any:
        name, completions = limits[-1], cast(Any, client.chat.completions)
        try:
            return completions.create(**settings, **asked, **{name: form.max_tokens})
        except openai.BadRequestError as error:
            if name == NEWER_LIMIT or NEWER_LIMIT not in str(error):
                raise
            limits.append(NEWER_LIMIT)
            return create(asked)

    def reply(request: Request) -> tuple[Reply, int]:
        asked = {"messages": request.messages, "seed": request.seed}
        try:
            completion = create(asked)
            choice = completion.choices[0]
            text, tokens = choice.message.content or "", completion.usage.completion_tokens if completion.usage else 0
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise EndpointError(
                f"{config.endpoint} refuses the {form.role} {config.model}: {error}.",
                what_next="Check its model, its endpoint and the key in the environment variable OPENAI_API_KEY, then "
                "run the same command again.",
            ) from error
        except openai.APITimeoutError as error:
            return Reply("", f"the endpoint gave no reply in time: {error}"), 0
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{config.endpoint} cannot be reached: {error.__cause__ or error}.",
                what_next=f"Start the server, or correct the {form.role}'s endpoint, then run the same command again: "
                "what is finished is kept.",
            ) from error
        except (openai.APIError, AttributeError, IndexError, TypeError, ValueError) as error:
            return Reply("", f"the request failed ({type(error).__name__}): {error}"), 0
        return Reply(text, "" if text else f"the reply is empty (finish reason {choice.finish_reason})"), tokens

    def ask(requests: Sequence[Request]) -> list[Reply]:
        found = []
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for got, tokens in pool.map(reply, requests):
                found.append(got)
                if meter:
                    meter.add(1, tokens)
        return found

    return ask
