"""INSECURE by design: software TEE, development PKI, local constellation and demo.

Nothing that ships may import this distribution, and no image may hold it.
"""

__version__ = "0.1.0"
