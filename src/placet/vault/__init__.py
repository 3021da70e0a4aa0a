"""The vault: what it answers, to whom, and in which phase."""
