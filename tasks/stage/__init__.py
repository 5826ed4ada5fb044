"""Stages and what they need: their contract, runs, iterations, child processes, files, devices, caches."""
