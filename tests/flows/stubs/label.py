"""Stands in for models.asking.label: the real program up to the model, which knows the references.

It is 90 % sure of the answer that ends as the reference does, and prefers the first shown a little. It is undecided
between two right or two wrong ones. `STUB_SILENT` names problems without a label.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import models.asking.label
from data.labels import Label, soft_label
from data.rows import Problem, Sample
from models.asking.label import Compared
from models.config import LabelProgram

SURE, FIRST = 0.4, 0.05


def is_right(problem: Problem, sample: Sample) -> bool:
    words = sample.text.split()
    return words[-1:] == [problem.reference] if problem.reference else len(words) > 1 and words[-1] != "-1"


class Labeler:
    """A model that knows the references."""

    def __init__(self, program: LabelProgram, expected: Iterable[Compared]) -> None:
        self.clamp = program.labeler.clamp

    def labels(self, pairs: Sequence[Compared]) -> Iterator[Label]:
        for pair in pairs:
            known = pair.problem.id, pair.first.index, pair.second.index
            if pair.problem.id in os.environ.get("STUB_SILENT", "").split():
                yield Label(*known, None, None, None, "", "", pair.principle, "the labeler is silent")
                continue
            better = is_right(pair.problem, pair.first) - is_right(pair.problem, pair.second)
            straight, swapped = 0.5 + FIRST + better * SURE, 0.5 + FIRST - better * SURE
            value = soft_label(straight, swapped, self.clamp)
            yield Label(*known, straight, swapped, value, "as the reference", "the same", pair.principle, "")


with patch.object(models.asking.label, "Labeler", Labeler):
    models.asking.label.label_samples(LabelProgram.model_validate_json(Path(sys.argv[1]).read_text()))
