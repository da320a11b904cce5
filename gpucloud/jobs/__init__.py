"""Work on a cluster: push, set up, run detached, follow, bring the outputs home."""
