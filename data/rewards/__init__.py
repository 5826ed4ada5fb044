"""Rewards: plain functions that judge one completion, `(problem, completion) -> Score`, chosen by name.

To add a built-in reward, write it in a file here and add its line to `BUILT_IN` in `loading.py`. A reward may have
attributes: `reads`, the use that data sets are read for ("problems"; "prompts" for a reward that needs no reference);
`can_grade(reference)`, whether a problem can be graded; `prepare()`, which raises RewardError if the reward cannot work
on this machine; `isolate(level)`, which raises RewardError if programs cannot be sandboxed at that level.
Running a reward over many samples, in parallel or not, is up to the score stage.
"""

from data.rewards.loading import (
    BUILT_IN,
    Reward,
    RewardError,
    grader_version,
    judged_by,
    load_named,
    load_reward,
    prepare_reward,
)

__all__ = [
    "BUILT_IN",
    "Reward",
    "RewardError",
    "grader_version",
    "judged_by",
    "load_named",
    "load_reward",
    "prepare_reward",
]
