"""Talk to a constellation of vaults and count what they say."""
