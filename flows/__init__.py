"""The loops. One file per algorithm; each reads like the algorithm box of its paper."""
