"""What finished and unfinished runs are asked: listed, traced, compared, verified, reconciled."""
