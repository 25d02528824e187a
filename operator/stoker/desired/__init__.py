"""Pure: from a resolved resource to its child objects, exactly as they are applied."""
