"""Other people's worlds, each behind an extra."""
