"""Everything that talks to the API server and to pods; plain dicts in, plain dicts out."""
