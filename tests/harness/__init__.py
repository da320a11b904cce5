"""Real SSH hosts for the tests: on loopback, and as separate machines behind a slow line."""
