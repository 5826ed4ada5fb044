"""The verbs that flows are written in: the stage contract, process supervision, tracking, the report."""
