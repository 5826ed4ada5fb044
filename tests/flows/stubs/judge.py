"""Stands in for models.asking.judge: the real program up to the model, which knows the references.

Five points for an answer that ends as the reference does, else one; without one, five for several words but -1.
It always says what `STUB_SCORE` holds, replies nothing that can be read to the problems that `STUB_SILENT`
names, and fails if there is `STUB_FAILS`.
"""

import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

import models.asking.judge
from data.judge_questions import Opinion, as_opinion
from data.rows import Problem, Sample
from models.asking.judge import Asked
from models.config import JudgeProgram


def points(problem: Problem, sample: Sample) -> int:
    if "STUB_SCORE" in os.environ:
        return int(os.environ["STUB_SCORE"])
    words = sample.text.split()
    right = words[-1:] == [problem.reference] if problem.reference else len(words) > 1 and words[-1] != "-1"
    return 5 if right else 1


def reply(asked: Asked) -> Opinion:
    problem, question = asked
    first, second = points(problem, question.first), points(problem, question.second) if question.second else None
    told = {"score": first} if second is None else {"better": "tie" if first == second else "AB"[first < second]}
    silent = problem.id in os.environ.get("STUB_SILENT", "").split()
    text = "" if silent else json.dumps({"reasoning": "as the reference"} | told)
    return as_opinion("pointwise" if second is None else "pairwise", question, text)


if "STUB_FAILS" in os.environ:
    sys.exit("the judge fails")
told = JudgeProgram.model_validate_json(Path(sys.argv[1]).read_text())
with patch.object(models.asking.judge, "asking", lambda program, expected: lambda asked: list(map(reply, asked))):
    models.asking.judge.judge_samples(told)
