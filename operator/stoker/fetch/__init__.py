"""`stoker fetch`: brings a model's weights into the cache before the engine starts."""
