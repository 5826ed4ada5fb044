"""Policies' answers, their rewards, and the evaluation of policies on held-out rows."""
