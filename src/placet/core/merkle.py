"""RFC 6962 Merkle trees: growing, inclusion, consistency. Pure (spec/06, section 4).

A *complete node* ``(level, position)`` is the hash over the ``2**level`` leaves that start
at ``position * 2**level``. Whoever keeps complete nodes as they arise (`Frontier.completed`)
writes any proof from O(log n) of them; whoever only appends keeps a `Frontier`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from placet.core.encoding import Int, Record, b64, unb64
from placet.errors import MalformedError, VerificationError

HASH_SIZE = 32

Node = Callable[[int, int], bytes]
"""Level and position of a complete node; returns its hash."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\1" + left + right).digest()


class FrontierRecord(Record):
    """A `Frontier` as it is stored."""

    size: Int
    hashes: Annotated[tuple[str, ...], Meta(max_length=64)]


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that appending needs: one hash per set bit of ``size``, the largest subtree first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def completed(self, leaf: bytes) -> tuple[bytes, ...]:
        """Return the nodes that ``leaf`` would complete, the leaf (level 0) first."""
        nodes = [leaf]
        while self.size >> (len(nodes) - 1) & 1:
            nodes.append(node_hash(self.hashes[-len(nodes)], nodes[-1]))
        return tuple(nodes)

    def append(self, leaf: bytes) -> Frontier:
        """Return the frontier with one more leaf, given by its `leaf_hash`."""
        nodes = self.completed(leaf)
        kept = self.hashes[: len(self.hashes) - len(nodes) + 1]
        return Frontier(self.size + 1, (*kept, nodes[-1]))

    def root(self) -> bytes:
        """Return the root over all leaves; of none, the hash of the empty string."""
        if not self.hashes:
            return hashlib.sha256().digest()
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def to_record(self) -> FrontierRecord:
        """Return the form that is stored."""
        return FrontierRecord(size=self.size, hashes=tuple(map(b64, self.hashes)))

    @classmethod
    def from_record(cls, record: FrontierRecord) -> Frontier:
        """Return the frontier that was stored.

        Raises:
            MalformedError: The hashes do not fit the size.
        """
        hashes = tuple(map(unb64, record.hashes))
        if len(hashes) != record.size.bit_count() or any(len(h) != HASH_SIZE for h in hashes):
            raise MalformedError(f"frontier has {len(hashes)} hashes for {record.size} leaves")
        return cls(record.size, hashes)


def inclusion_proof(node: Node, index: int, size: int) -> tuple[bytes, ...]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` (RFC 6962, 2.1.1).

    Raises:
        ValueError: There is no such leaf: the caller is wrong.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    start, stop, path = 0, size, list[bytes]()
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append(_subtree(node, middle, stop))
            stop = middle
        else:
            path.append(_subtree(node, start, middle))
            start = middle
    return tuple(reversed(path))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf`` is number ``index`` of the ``size`` under ``root`` (RFC 9162, 2.1.3.2).

    That ``root`` is the log's is *not* checked: that is a checkpoint's signature.

    Raises:
        VerificationError: The proof shows something else.
    """
    known = 0 <= index < size
    place, last, found = index, size - 1, leaf
    for sibling in proof if known else ():
        if last == 0:
            known = False
            break
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if not known or last or found != root:
        raise VerificationError(f"the proof does not place leaf {index} in that tree of {size}")


def consistency_proof(node: Node, old: int, new: int) -> tuple[bytes, ...]:
    """Return the proof that the tree of ``new`` grew out of that of ``old`` (RFC 6962, 2.1.2).

    Raises:
        ValueError: ``old`` is larger than ``new``: the caller is wrong.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} does not grow out of one of {old}")
    start, stop, path = 0, new, list[bytes]()
    while old and old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            path.append(_subtree(node, middle, stop))
            stop = middle
        else:
            path.append(_subtree(node, start, middle))
            start = middle
    if start:
        path.append(_subtree(node, start, stop))
    return tuple(reversed(path))


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that nothing among the first ``old`` leaves changed (RFC 9162, 2.1.4.2).

    Raises:
        VerificationError: The log went back, was rewritten, or the proof is another's.
    """
    if 0 < old < new:
        good = _two_roots(old, new, old_root, proof) == (old_root, new_root)
    else:
        before = new_root if old == new else Frontier().root()
        good = 0 <= old <= new and not proof and old_root == before
    if not good:
        raise VerificationError(f"the tree of {new} did not grow out of that tree of {old}")


def _two_roots(old: int, new: int, old_root: bytes, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the roots of both trees as the proof gives them; empty ones if it does not fit."""
    steps = list(proof)
    if old & (old - 1) == 0:  # the whole old tree is one complete node, and not sent
        steps.insert(0, old_root)
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not steps:
        return b"", b""
    was = now = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return b"", b""
        if place & 1 or place == last:
            was, now = node_hash(sibling, was), node_hash(sibling, now)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            now = node_hash(now, sibling)
        place, last = place >> 1, last >> 1
    return (b"", b"") if last else (was, now)


def _split(size: int) -> int:
    """Return the largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _subtree(node: Node, start: int, stop: int) -> bytes:
    """Return the hash over leaves ``start`` to ``stop``, as the tree is cut there."""
    level = (stop - start - 1).bit_length()
    if stop - start == 1 << level:
        return node(level, start >> level)
    middle = start + _split(stop - start)
    return node_hash(_subtree(node, start, middle), _subtree(node, middle, stop))
