"""Who may do what to a key, decided without I/O, clock or randomness."""
