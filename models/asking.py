"""Asking a language model, by vLLM here or at an OpenAI-compatible endpoint, for replies of a fixed form in JSON.

What is asked, and how a reply is read, is in `data`: of a judge in judge.py, of a writer of prompts in
written_prompts.py.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data.render import context_length, prompt_token_ids
from models.config import AskedModelConfig, EngineConfig
from models.endpoint import at_endpoint
from models.generate import Meter, run_requests, start_engine
from models.loading import load_config, load_tokenizer
from models.progress import Progress
from models.request import Ask, Form, Reply, Request


def asker(
    config: AskedModelConfig,
    form: Form,
    folder: Path | None,
    engine: EngineConfig,
    seed: int,
    expected: Iterable[Request],
) -> Ask:
    """What answers requests, in the order given. An engine starts here where the model is no endpoint's.

    Args:
        folder: of the model; None where it is at an endpoint.
        seed: of the engine; requests have their own.
        expected: everything that will be asked, for the context that is needed and the progress that is shown.

    Raises:
        EndpointError: when asked: the endpoint cannot be reached, or refuses the key or the model.
    """
    if config.endpoint is None:
        assert folder is not None
        return _with_vllm(config, form, folder, engine, seed, expected)
    return at_endpoint(config, form, Meter(Progress(form.role, sum(1 for _ in expected), "reply")))


def _with_vllm(
    config: AskedModelConfig, form: Form, folder: Path, engine: EngineConfig, seed: int, expected: Iterable[Request]
) -> Ask:
    """Start the model here. Replies are held to the schema while they are decoded, so every finished one can be read.

    A request that does not fit into the model's context gets no reply.
    """
    tokenizer = load_tokenizer(folder, config.model_code)
    context = engine.max_model_len or context_length(load_config(folder, config.model_code))
    lengths = [len(prompt_token_ids(tokenizer, request.messages)) for request in expected]
    longest = min(context, max(lengths, default=0) + form.max_tokens)
    fitting = sum(length + form.max_tokens <= context for length in lengths)
    meter = Meter(Progress(form.role, fitting, "reply"))
    running = None
    if fitting:
        # Of vLLM's backends, this one holds to patterns of strings and to JSON without blanks.
        constrained = {"backend": "guidance", "disable_any_whitespace": True}
        told: dict[str, Any] = {"structured_outputs_config": constrained}
        running = start_engine(folder, engine, config.dtype, longest, seed, config.model_code, **told)

    def ask(requests: Sequence[Request]) -> list[Reply]:
        prompts = [prompt_token_ids(tokenizer, request.messages) for request in requests]
        fits = [len(ids) + form.max_tokens <= context for ids in prompts]
        fitted = [(ids, request) for ids, request, fit in zip(prompts, requests, fits, strict=True) if fit]
        parameters = [sampling_parameters(config, form, request.seed) for _, request in fitted]
        outputs = iter(run_requests(running, [ids for ids, _ in fitted], parameters, meter) if fitted else [])
        return [
            Reply(next(outputs).outputs[0].text) if fit else _does_not_fit(form, len(ids), context)
            for ids, fit in zip(prompts, fits, strict=True)
        ]

    return ask


def _does_not_fit(form: Form, length: int, context: int) -> Reply:
    return Reply(
        "",
        f"the {form.role}'s prompt of {length} tokens, with {form.max_tokens} for the reply, does not fit into its "
        f"context of {context}",
    )


def sampling_parameters(config: AskedModelConfig, form: Form, seed: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        temperature=config.temperature,
        max_tokens=form.max_tokens,
        seed=seed if config.temperature > 0 else None,
        structured_outputs=StructuredOutputsParams(json=form.schema),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
