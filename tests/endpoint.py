"""A server that speaks as much of OpenAI's chat completions as is needed."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """`answer` makes status and text of a request."""

    daemon_threads = True
    answer: Callable[[dict[str, Any]], tuple[int, Any]]
    requests: list[dict[str, Any]]
    keys: set[str]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        self.server.keys.add(self.headers["Authorization"])
        status, text = self.server.answer(body) if self.path == "/v1/chat/completions" else (404, "no such path")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        good = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        content = json.dumps(good if status == 200 else {"error": {"message": text}}).encode()
        in_pieces = status == 200 and body.get("stream")
        if in_pieces:
            pieces = [good | {"choices": [{"index": 0, "delta": {"content": letter}}]} for letter in text]
            content = "".join(f"data: {said}\n\n" for said in [*map(json.dumps, pieces), "[DONE]"]).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream" if in_pieces else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *_: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server on this machine, with an `answer` still to be set."""
    with Server(("127.0.0.1", 0), Handler) as found:
        found.requests, found.keys = [], set()
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()
