"""The objects of the protocol and their one encoding. Pure: no I/O, clock or randomness."""
