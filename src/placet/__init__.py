"""Data owners decide which version of a confidential app may read their data."""

__version__ = "0.1.0"
