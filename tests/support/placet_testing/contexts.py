"""A connection that evidence is made for, and what a process may not say about itself."""

from __future__ import annotations

from placet.core.attestation import Context
from placet.core.encoding import b64

LIES: dict[str, dict[str, object]] = {
    "role of a resharer": {"role": "resharer"},
    "app": {"app": "bank"},
    "image": {"image": "sha256:" + "f" * 64},
    "config": {"config": "sha384:" + "f" * 96},
    "boot id of another start": {"boot": "boot-0"},
    "another instance than before": {"instance": "instance-2"},
    "no instance": {"instance": ""},
}
"""Claims that no process of the tests may have quoted; its other role comes besides (R1.6)."""


def connection(**claims: object) -> Context:
    """Return the context of a workload that connects, with these claims in place of its own."""
    said: dict[str, object] = {
        "instance": "notes-1",
        "app": "notes",
        "purpose": "release",
        "keys": "sha256:" + "03" * 32,
        "boot": "b1",
    }
    return Context(
        role="workload",
        direction="client",
        spki="sha256:" + "01" * 32,
        peer_spki="sha256:" + "02" * 32,
        verifier_nonce=b64(b"v" * 32),
        prover_nonce=b64(b"p" * 32),
        exporter=b64(b"e" * 32),
        **said | claims,  # type: ignore[arg-type]
    )
