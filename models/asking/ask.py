"""Asks a language model, here or at an OpenAI-compatible endpoint, for replies in a fixed JSON format.

The questions and the parsing of replies are in `data`: judge_questions.py for judges, written_prompts.py for prompt
writers.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from data.render import question_token_ids
from models.asking.endpoint import at_endpoint
from models.asking.request import Ask, Form, Reply, Request
from models.config import AskedModelConfig, EngineConfig
from models.engine import Request as EngineRequest
from models.engine import Served, answers_in_order, start
from models.engine.meter import Meter
from models.loading import load_tokenizer, room_of
from models.progress import Progress


def asker(
    config: AskedModelConfig,
    form: Form,
    folder: Path | None,
    engine: EngineConfig,
    seed: int,
    expected: Iterable[Request],
) -> Ask:
    """Return a function that answers requests in order. Without an endpoint, an engine starts here.

    Args:
        folder: the model's folder; None at an endpoint.
        seed: the engine's seed; requests have their own.
        expected: everything that will be asked, for sizing the context and showing progress.

    Raises:
        EndpointError: on the first request: the endpoint cannot be reached, or refuses the key or the model.
    """
    if config.endpoint is None:
        assert folder is not None
        return _here(config, form, folder, engine, seed, expected)
    count = sum(1 for _ in expected)
    return at_endpoint(config, form, Meter(Progress(form.role, count, "reply")) if count else None)


def _here(
    config: AskedModelConfig, form: Form, folder: Path, engine: EngineConfig, seed: int, expected: Iterable[Request]
) -> Ask:
    """Start the model here. Decoding constrains replies to the schema, so every finished reply can be parsed.

    A request that does not fit into the model's context gets no reply.
    """
    tokenizer = load_tokenizer(folder, config.model_code)
    context = room_of(folder, config.model_code, engine.max_model_len)
    lengths = [len(question_token_ids(tokenizer, request.messages)) for request in expected]
    longest = min(context, max(lengths, default=0) + form.max_tokens)
    fitting = sum(length + form.max_tokens <= longest for length in lengths)
    meter = Meter(Progress(form.role, fitting, "reply"))
    running = None
    if fitting:
        served = Served(folder, config.dtype, longest, seed, config.model_code, held_to_schemas=True)
        running = start(served, engine)

    def ask(requests: Sequence[Request]) -> list[Reply]:
        prompts = [question_token_ids(tokenizer, request.messages) for request in requests]
        fits = [len(ids) + form.max_tokens <= longest for ids in prompts]
        fitted = [
            _engine_request(config, form, request.seed, ids)
            for ids, request, fit in zip(prompts, requests, fits, strict=True)
            if fit
        ]
        answers = iter(answers_in_order(running, fitted, meter) if running and fitted else [])
        return [
            Reply(next(answers)[0].text)
            if fit
            else Reply("", does_not_fit(form.role, len(ids), form.max_tokens, longest))
            for ids, fit in zip(prompts, fits, strict=True)
        ]

    return ask


def does_not_fit(role: str, prompt: int, reply: int, context: int) -> str:
    """Why a model gives no reply to a prompt of so many tokens."""
    asked = f"the {role}'s prompt of {prompt} tokens, with {reply} for the reply"
    return f"{asked}, does not fit into its context of {context}"


def _engine_request(config: AskedModelConfig, form: Form, seed: int, prompt: list[int]) -> EngineRequest:
    drawn = seed if config.temperature > 0 else None
    told = config.temperature, form.max_tokens, drawn
    return EngineRequest(prompt, 1, *told, top_p=form.top_p, schema=form.schema)
