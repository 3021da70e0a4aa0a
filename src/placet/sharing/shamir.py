"""Shamir's scheme over GF(2^8), all bytes of a secret at once (spec/04, sections 1 and 2).

A secret of L bytes is L independent polynomials. They are evaluated together: the whole
vector of bytes is one Python integer, and a multiplication by a *public* constant is
shifts, masks and XORs of that integer. Nothing branches on a secret and no secret is an
index into a table (CVE-2023-25000 was such a table). Bits above the data keep every
intermediate integer at one size, so that leading zero bytes do not show in its length.

What CPython cannot promise: its integers are no constant-time type by contract, and
``int`` and ``bytes`` are freed but never overwritten. Hence a key is put together once
per boot, inside the TEE.

Shares here are bare: nothing shows that one is wrong. `placet.sharing.key` adds that.

Example:
    >>> from itertools import count
    >>> step = count(1)
    >>> shares = split(b"key", k=2, xs=(1, 2, 3), rng=lambda size: bytes([next(step)]) * size)
    >>> interpolate_unchecked({1: shares[0], 3: shares[2]})
    b'key'
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from placet.core.limits import MAX_SECRET


class Field:
    """GF(2^degree), one element in each byte. Never changed once made.

    The tables hold logarithms of *public* numbers: places x, and quotients of them.

    Args:
        degree: 8; smaller ones are for tests, which can then try every case.
        reduction: x^degree modulo a polynomial of which x + 1 is a primitive root.
    """

    def __init__(self, degree: int, reduction: int) -> None:
        self.degree, self.reduction = degree, reduction
        value, powers = 1, []
        for _ in range((1 << degree) - 1):
            powers.append(value)
            value ^= value << 1
            value ^= (value >> degree) * (1 << degree | reduction)
        self.exp = tuple(powers)
        self.log = {value: power for power, value in enumerate(powers)}

    def weighted_sum(self, terms: Sequence[tuple[int, bytes]]) -> bytes:
        """Return the sum of public constants times secret vectors of one length.

        Horner's rule over the bits of all constants together: at most seven
        doublings, however many terms there are.
        """
        # 1.3 Bytes 0 to L-1 are the elements; L takes what runs over and the mark that
        #     keeps a loaded vector at one size; L+1 is the mark of the running total.
        length = len(terms[0][1])
        ones = int.from_bytes(b"\1" * length, "little")
        top = 1 << 8 * (length + 1)
        high_bit = self.degree - 1
        low, high = ((1 << high_bit) - 1) * ones | top, (ones << high_bit) | top
        vectors = [(c, int.from_bytes(v + b"\1", "little")) for c, v in terms]
        total = top
        for bit in reversed(range(max(c for c, _ in terms).bit_length())):
            doubled, carried = (total & low) << 1, (total & high) >> high_bit
            total = doubled ^ carried * self.reduction ^ 3 * top
            for constant, vector in vectors:
                if constant >> bit & 1:  # public
                    total ^= vector
        return total.to_bytes(length + 2, "little")[:length]


GF256 = Field(8, 0x1B)
"""The field of AES: x^8 + x^4 + x^3 + x + 1 (FIPS 197, section 4.2)."""


def draw(rng: Callable[[int], bytes], size: int) -> bytes:
    """Return ``size`` random bytes, and never fewer.

    Raises:
        ValueError: ``rng`` returned another number of bytes: the caller is wrong.
    """
    data = rng(size)
    if len(data) != size:
        raise ValueError(f"rng returned {len(data)} bytes, {size} were asked for")
    return data


def split(
    secret: bytes,
    *,
    k: int,
    xs: Sequence[int],
    rng: Callable[[int], bytes],
    over: Field = GF256,
) -> tuple[bytes, ...]:
    """Return one share for each of ``xs``; any k of them give the secret back.

    Args:
        secret: 1 to `MAX_SECRET` bytes.
        k: How many shares it takes, 1 to ``len(xs)``.
        xs: Places, 1 to 255, each once.
        rng: Cryptographically secure; asked k-1 times for as many bytes as the secret
            has, coefficient of x first. Every byte value is used, zero and the leading
            coefficient included.
        over: The field; anything but the default is for tests.

    Raises:
        ValueError: An argument is out of range; nothing was computed.
    """
    # 2.1 Lengths and places, before any arithmetic.
    _check_places(xs, over)
    _check_length(len(secret))
    if not 1 <= k <= len(xs):
        raise ValueError(f"k must be 1 to {len(xs)} (the number of shares), got {k}")

    # 2.2 One fresh polynomial for each byte: uniform coefficients, none left out.
    coefficients = [secret, *(draw(rng, len(secret)) for _ in range(k - 1))]

    # 2.3 Share x is the value at x.
    order = len(over.exp)
    powers = [[over.exp[over.log[x] * power % order] for power in range(k)] for x in xs]
    return tuple(over.weighted_sum(list(zip(row, coefficients, strict=True))) for row in powers)


def interpolate_unchecked(points: Mapping[int, bytes], *, over: Field = GF256) -> bytes:
    """Return the value at 0 of the polynomials through exactly these points.

    **A wrong share, a share too few or a mix of two sharings gives a wrong secret and no
    error.** Use `placet.sharing.key.combine`.

    Args:
        points: Share by place. How many it takes is not known here.
        over: As for `split`.

    Raises:
        ValueError: A place out of range, no points, or lengths that differ; nothing was
            computed.
    """
    # 2.4 Places and lengths, before any arithmetic.
    _check_places(points, over)
    lengths = {len(share) for share in points.values()}
    if len(lengths) != 1:
        raise ValueError(f"shares differ in length: {sorted(lengths)}")
    _check_length(*lengths)

    # 2.5 Lagrange at 0: the weight of x is the product of y / (y - x) over the other places.
    logs = {x: sum(over.log[y] - over.log[x ^ y] for y in points if y != x) for x in points}
    return over.weighted_sum([(over.exp[logs[x] % len(over.exp)], points[x]) for x in points])


def _check_places(xs: Collection[int], over: Field) -> None:
    if not xs:
        raise ValueError("no places: nothing could be shared or put together")
    if not all(x in over.log for x in xs):
        raise ValueError(f"places must be 1 to {len(over.exp)}, got {sorted(xs)}")
    if len(set(xs)) != len(xs):
        raise ValueError(f"places must differ, got {sorted(xs)}")


def _check_length(length: int) -> None:
    if not 1 <= length <= MAX_SECRET:
        raise ValueError(f"secret must be 1 to {MAX_SECRET} bytes, got {length}")
