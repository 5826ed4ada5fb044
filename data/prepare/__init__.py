"""From files to the rows that are used: their content, their split, and which rows are left out and why."""
