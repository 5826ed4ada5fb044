"""Data sets in: inspected, turned into problems, gold answers and pairs, and what of them is trained on."""
