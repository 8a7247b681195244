"""Orders and stock."""
