"""An independent auditor of placet keys: every release, and the signature that justifies it.

Written from the specification alone (spec/, and spec/11 for exports); it imports nothing of
``placet``, opens no socket, and needs `cryptography` besides the standard library.

Reading order: `placet_audit.audit` (the whole), `export` (what is read), `visit` (one log by
itself), `replay` (every entry decided again), `taking` and `policy` (the rules), `between`
(visits, vaults and receipts against each other), `report` and `page` (what a person sees).
"""

__version__ = "0.1.0"
