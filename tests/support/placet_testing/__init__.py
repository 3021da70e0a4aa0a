"""What many tests need: keys with fixed seeds, charters, and a software TEE in this process."""
