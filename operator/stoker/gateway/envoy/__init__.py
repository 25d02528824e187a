"""Envoy's configuration: settings and models in, JSON-ready documents out. Pure.

Written for Envoy 1.40; every choice that is not obvious was tried on it.
"""
