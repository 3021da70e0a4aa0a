"""Notes: a small web app that keeps what it is told, encrypted, and knows nothing of placet.

From its surroundings it takes two variables: ``PLACET_KEY_FD``, the descriptor to read its
key from, and ``PLACET_VOLUME``, the folder to keep its data in.
"""
