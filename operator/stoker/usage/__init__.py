"""`stoker usage`: collects what gateway pods have served, keeps it, and tells it."""
