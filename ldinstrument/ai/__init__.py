"""Calls of language models: what they use, cost and answer, as metrics of the session."""
