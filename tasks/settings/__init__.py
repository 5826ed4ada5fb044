"""Settings that every run and every loop has."""
