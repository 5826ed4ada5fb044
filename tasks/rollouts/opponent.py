"""SPIN's game on held-out prompts: gold answers over those of the opponent, which the new policy is to tell apart."""

from collections.abc import Mapping

from models.config import PreferenceConfig
from tasks.datasets.pairs import PAIRS_FILE, pair
from tasks.policies.reference import PairsMeasured, measured_by
from tasks.rollouts.evaluate import HeldOut
from tasks.stage.contract import Artifact
from tasks.stage.run import Result, Run


def held_out_pairs(
    run: Run, name: str, samples: Result, prompts: Mapping[str, Artifact], tokenizer: Artifact, max_tokens: int
) -> dict[str, Artifact]:
    """Pair held-out gold answers with the opponent's own, set by set, as training pairs are made.

    Args:
        name: of the iteration.
        samples: of the stage `generate`, which answered these prompts too.
        prompts: held-out problems by set.
    """
    made = {
        known: pair(
            run,
            f"{name}/pair-{known}",
            problems,
            samples.artifact(known),
            tokenizer,
            max_tokens,
            expected=0,
            may_be_none=True,
        )
        for known, problems in prompts.items()
    }
    return {known: stage.artifact(PAIRS_FILE) for known, stage in made.items()}


def against_opponent(
    pairs: Mapping[str, Artifact],
    samples: Result,
    reference: Result,
    settings: PreferenceConfig,
    unseen: HeldOut | None,
) -> dict[str, PairsMeasured]:
    """What the new policy is measured on: whether it ranks gold answers above the opponent's, which is its reference.

    Args:
        samples: of the stage `generate`, whose answers are described beside.
        reference: of the stage that measured these pairs by the opponent.
    """
    expected = unseen.expected if unseen else 0
    return {
        name: measured_by(reference, name, artifact, settings, expected, samples.artifact(name))
        for name, artifact in pairs.items()
    }
