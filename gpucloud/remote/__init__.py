"""SSH: reach, pin, execute, follow, sync."""
