"""Policies and their training: model folders, the base, adapters, the training stages, the best policy."""
