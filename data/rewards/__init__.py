"""Rewards: plain functions that judge one completion, `(problem, completion) -> Score`, chosen by name.

To add a built-in reward, write it in a file here and add its line to `BUILT_IN` in `loading.py`. A reward may have
attributes: `reads`, the use that data sets are read for ("problems"; "prompts" for a reward that looks at no
reference); `can_grade(reference)`, whether a problem can be judged; `prepare()`, which raises RewardError if it cannot
work on this machine; `isolate(level)`, which raises it if programs cannot be sandboxed at that level.
Running a reward over many samples, in parallel or not, is the score stage's business and not done here.
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
