"""Rewards: plain functions that judge one completion, `(problem, completion) -> Score`, chosen by name.

To add a built-in reward, write it in a file here and add its line to `BUILT_IN` in `loading.py`.
Running a reward over many samples, in parallel or not, is the score stage's business and not done here.
"""

from data.rewards.loading import BUILT_IN, Reward, RewardError, grader_version, load_reward

__all__ = ["BUILT_IN", "Reward", "RewardError", "grader_version", "load_reward"]
