"""The report of a run: typed records in, one page out. It does not read runs."""
