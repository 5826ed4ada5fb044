"""A language model that is asked something, here or at an endpoint: to judge answers, to write prompts."""
