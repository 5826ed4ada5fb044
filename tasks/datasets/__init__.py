"""Data sets: inspecting them, turning them into problems, gold answers and pairs, and selecting training rows."""
