"""Attest, gather shares, open the volume, start the app."""
