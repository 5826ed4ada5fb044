"""Requests to a language model, run here or served at an endpoint: judging answers, writing prompts."""
