"""Stands in for models.asking.new_prompts: the real program up to the model, which makes up a sentence for each seed.

Every tenth is a refusal, and every fifth repeats the first example that it is shown.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import models.asking.new_prompts
from models.asking.request import Reply, Request
from models.config import NewPromptsProgram


def reply(request: Request) -> Reply:
    said = f"Tell about thing {request.seed} and about nothing that is like it."
    if request.seed % 10 == 0:
        said = "I'm sorry, but I can't."
    elif request.seed % 5 == 0:
        said = request.messages[0]["content"].splitlines()[1]
    return Reply(json.dumps({"instruction": said}))


def asker(*_: Any) -> Any:
    def ask(requests: Sequence[Request]) -> list[Reply]:
        return [reply(request) for request in requests]

    return ask


told = NewPromptsProgram.model_validate_json(Path(sys.argv[1]).read_text())
with patch.object(models.asking.new_prompts, "asker", asker):
    models.asking.new_prompts.make_up(told)
