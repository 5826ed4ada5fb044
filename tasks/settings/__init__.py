"""What can be set of every run and of every loop."""
