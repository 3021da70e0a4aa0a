"""INSECURE: a software TEE that quotes in the real formats, under its own root."""
