"""Parameter-efficient fine-tuning: the settings of every kind, and a file for each kind."""
