"""The PIN of the stand-in security key: CTAP2's clientPIN, from the device's side.

Protocols 1 and 2 (CTAP 2.1, section 6.5). ``fido2`` has both for the client; what a device
computes is the same from the other end, so its primitives are used here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from fido2.ctap import CtapError
from fido2.ctap2.pin import PinProtocolV1, PinProtocolV2

E = CtapError.ERR
# ``fido2`` leaves some of their methods without types.
PROTOCOLS: dict[int, Any] = {1: PinProtocolV1(), 2: PinProtocolV2()}
TRIES, AGREEMENT, TOKENS = 1, 2, {5, 9}
"""Subcommands: getPINRetries, getKeyAgreement, and both ways to get a token by PIN."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the device says, and whether it heard the right PIN."""

    members: dict[int, Any]
    right: bool = False


class PinDoor:
    """One session: a key to agree on secrets with, and the token that stands for the PIN."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._token = os.urandom(32)

    def answer(self, request: Mapping[int, Any], pin: str, tries: int) -> Answer:
        """Answer one subcommand.

        Raises:
            CtapError: A wrong PIN (``PIN_INVALID``), no tries left, or an unknown command.
        """
        subcommand = request[2]
        if subcommand == TRIES:
            return Answer({3: tries})
        if subcommand == AGREEMENT:
            return Answer({1: _cose(self._private.public_key())})
        if subcommand not in TOKENS:
            raise CtapError(E.INVALID_SUBCOMMAND)
        if tries == 0:
            raise CtapError(E.PIN_BLOCKED)
        protocol = PROTOCOLS[request[1]]
        secret = protocol.kdf(self._private.exchange(ec.ECDH(), _public(request[3])))
        came = protocol.decrypt(secret, request[6])
        if not hmac.compare_digest(came, hashlib.sha256(pin.encode()).digest()[:16]):
            raise CtapError(E.PIN_INVALID)
        return Answer({2: protocol.encrypt(secret, self._token)}, right=True)

    def check(self, version: int | None, mac: bytes, message: bytes) -> None:
        """Check that who sends ``message`` holds the token.

        Raises:
            CtapError: They do not.
        """
        protocol = PROTOCOLS.get(version or 0)
        if protocol is None or not hmac.compare_digest(
            protocol.authenticate(self._token, message), mac
        ):
            raise CtapError(E.PIN_AUTH_INVALID)


def _cose(public: ec.EllipticCurvePublicKey) -> dict[int, Any]:
    at = public.public_numbers()
    return {1: 2, 3: -25, -1: 1, -2: at.x.to_bytes(32, "big"), -3: at.y.to_bytes(32, "big")}


def _public(key: Mapping[int, Any]) -> ec.EllipticCurvePublicKey:
    x, y = (int.from_bytes(key[n], "big") for n in (-2, -3))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
