"""A vault's sealed records; compare-and-swap is their law."""
