"""Stoker: a Kubernetes operator that turns GPU servers into a private LLM service."""

__version__ = "0.1.0"
