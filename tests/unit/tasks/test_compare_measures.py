"""Which measures of two runs are compared."""

from data.measures import MEASURES
from tasks.history.compare_measures import WHY_NOT


def test_every_measure_that_two_runs_do_not_share_says_why() -> None:
    assert WHY_NOT.keys() == {measure.name for measure in MEASURES.values() if not measure.across_runs}
