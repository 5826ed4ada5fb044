"""Programs that train, and that measure weights in the training format. Each program is a module."""
