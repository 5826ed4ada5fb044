"""A run's best policy for others: what is published, its model card, and the way to a folder or a hub."""
