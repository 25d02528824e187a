"""Kopf's side: what is watched, and what an event leads to. Nothing is decided or written here."""
