"""The building blocks of flows: the stage contract, process supervision, tracking, the report."""
