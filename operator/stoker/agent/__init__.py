"""`stoker agent`: the sidecar of every engine; the same metrics, readiness and drain whatever the engine.

Imports nothing else of ours and no large library: it runs beside every replica.
"""
