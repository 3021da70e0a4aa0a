"""Attestation evidence: `verify` judges it, `produce` gets it, and neither imports the other."""
