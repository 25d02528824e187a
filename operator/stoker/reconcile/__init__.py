"""From an object's name to its children and status: one file per kind."""
