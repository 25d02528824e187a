"""Builds the images of this repository, with Docker or without it."""
