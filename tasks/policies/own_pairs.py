"""Learning from pairs of a policy's own answers by DPO, with that policy as the reference: one iteration's stages."""

from models.config import PreferenceConfig
from tasks.policies.reference import PairsMeasured, measure_reference
from tasks.policies.train import train_on_pairs
from tasks.stage.contract import Artifact
from tasks.stage.launch import Training
from tasks.stage.run import Place, Result


def learn_own_pairs(
    at: Place, before: Artifact, training_pairs: Artifact, held_out: Artifact, training: Training[PreferenceConfig]
) -> tuple[Result, dict[str, Result], PairsMeasured]:
    """Measure pairs under the policy that wrote them, and train it on them.

    Args:
        held_out: pairs that are only measured.

    Returns:
        The stage that trained; both stages by kind; the held-out pairs, to measure the new policy on.
    """
    pairs = {"current": training_pairs, "validation": held_out}
    reference = measure_reference(at, before, pairs, training)
    unseen = reference.measured("validation")
    policy = train_on_pairs(at, before, {"current": reference.measured("current")}, training, unseen)
    return policy, {"reference": reference.stage, "train": policy}, unseen
