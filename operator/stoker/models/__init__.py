"""Pure: where weights come from and what they are."""
