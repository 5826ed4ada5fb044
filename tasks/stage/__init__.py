"""What a stage is and what it needs: its contract, a run, an iteration, child processes, files, devices, caches."""
