"""One key, n vaults, any k of them (spec/04). Pure: randomness is an argument."""
