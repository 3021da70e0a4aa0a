"""A model of n vaults and their owners: an oracle, a world of real policies, what may break."""
