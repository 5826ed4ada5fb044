"""The report of a run: typed records in, one page out. It reads no run."""
