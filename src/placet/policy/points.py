"""Points of Ed25519 as public keys: on the curve, in one spelling, of full order."""

from __future__ import annotations

_ed25519_size = 32
_p = 2**255 - 19
_d = -121665 * pow(121666, -1, _p) % _p


def check_ed25519(raw: bytes) -> None:
    """Refuse 32 bytes that are no point of Ed25519, or one that anybody can sign for.

    Raises:
        ValueError: Of another length, not canonical, off the curve, or of small order.
    """
    # OpenSSL takes any 32 bytes. Of a key of order 8 or less anybody could make signatures.
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if len(raw) != _ed25519_size or y >= _p:
        raise ValueError("not 32 bytes of a canonical point")
    y2 = y * y
    # x**2 = (y**2 - 1) / (d * y**2 + 1), RFC 8032 section 5.1.3, by Euler's criterion.
    if pow((y2 - 1) * (_d * y2 + 1), (_p - 1) // 2, _p) == _p - 1:
        raise ValueError("not on the curve")
    # Orders 4 | 1 and 2 | 8: doubling a point of order 8 gives y = 0, where x**2 = -y**2.
    if y * (y2 - 1) * (_d * y2 * y2 + 2 * y2 - 1) % _p == 0:
        raise ValueError("a point of small order")
