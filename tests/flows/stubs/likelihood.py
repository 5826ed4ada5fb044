"""Stands in for models.likelihood: every chosen token costs one nat, every rejected one two."""

import sys
from pathlib import Path

from data.rows import Pair, PairLikelihood
from data.storage import read_rows, write_rows
from models.config import LikelihoodProgram
from tests.flows.stubs.common import obey

program = LikelihoodProgram.model_validate_json(Path(sys.argv[1]).read_text())
obey(Path(sys.argv[1]).parent)
for pairs, output in zip(program.pairs, program.outputs, strict=True):
    rows = []
    for pair in read_rows(Pair, pairs):
        chosen = len(pair.chosen_token_ids or pair.chosen.split())
        rejected = len(pair.rejected_token_ids or pair.rejected.split())
        rows.append(PairLikelihood(pair.problem_id, pair.index, -chosen, -2 * rejected, chosen, rejected))
    write_rows(PairLikelihood, output, rows)
print("measured", flush=True)
