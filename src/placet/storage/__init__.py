"""What a vault keeps: sealed records and an append-only log (spec/06)."""
