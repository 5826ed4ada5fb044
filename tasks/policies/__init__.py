"""Policies and how they are trained: a model's folder, the base, adapters, the training stages, the best."""
