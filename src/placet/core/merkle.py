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

from placet.core.encoding import MAX_INT, Int, Record, b64, unb64
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
        if len(hashes) != record.size.bit_count() or not _hashes(hashes):
            raise MalformedError(f"frontier has {len(hashes)} hashes for {record.size} leaves")
        return cls(record.size, hashes)


def inclusion_proof(node: Node, index: int, size: int) -> tuple[bytes, ...]:
    """Return the audit path of leaf ``index`` in the tree of ``size`` (RFC 6962, 2.1.1).

    Raises:
        ValueError: There is no such leaf: the caller is wrong.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    _, beside = _way_down(size, index, index + 1)
    return tuple(_subtree(node, start, stop) for _, start, stop in beside)


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf`` is number ``index`` of the ``size`` under ``root`` (RFC 9162, 2.1.3).

    That ``root`` is the log's is *not* checked: that is a checkpoint's signature.

    Raises:
        VerificationError: The proof shows something else.
    """
    found, good = leaf, 0 <= index < size <= MAX_INT and _hashes(proof)
    if good:
        _, beside = _way_down(size, index, index + 1)
        good = len(beside) == len(proof)
        for (left, _, _), sibling in zip(beside, proof, strict=False):
            found = node_hash(sibling, found) if left else node_hash(found, sibling)
    if not good or found != root:
        raise VerificationError(f"the proof does not place leaf {index} in that tree of {size}")


def consistency_proof(node: Node, old: int, new: int) -> tuple[bytes, ...]:
    """Return the proof that the tree of ``new`` grew out of that of ``old`` (RFC 6962, 2.1.2).

    Raises:
        ValueError: ``old`` is larger than ``new``: the caller is wrong.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} does not grow out of one of {old}")
    if old == 0:
        return ()
    start, beside = _way_down(new, 0, old)
    path = tuple(_subtree(node, *place) for _, *place in beside)
    return (_subtree(node, start, old), *path) if start else path


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that nothing among the first ``old`` leaves changed (RFC 9162, 2.1.4).

    Raises:
        VerificationError: The log went back, was rewritten, or the proof is another's.
    """
    good = 0 <= old <= new <= MAX_INT and _hashes(proof)
    if good and old:
        start, beside = _way_down(new, 0, old)
        # Where the old tree is one complete node of the new one, its root is not sent again.
        first, *rest = proof if start and proof else (old_root, *proof)
        was = now = first
        for (left, _, _), sibling in zip(beside, rest, strict=False):
            was = node_hash(sibling, was) if left else was
            now = node_hash(sibling, now) if left else node_hash(now, sibling)
        good = len(rest) == len(beside) and (was, now) == (old_root, new_root)
    elif good:
        good = not proof and old_root == Frontier().root() and (new > 0 or new_root == old_root)
    if not good:
        raise VerificationError(f"the tree of {new} did not grow out of that tree of {old}")


def _hashes(proof: Sequence[bytes]) -> bool:
    """Whether all are of a hash's length: else two could be cut out of one node's bytes."""
    return all(len(one) == HASH_SIZE for one in proof)


def _way_down(size: int, first: int, stop: int) -> tuple[int, list[tuple[bool, int, int]]]:
    """Go down a tree of ``size`` to the subtree from ``first``, or later, to ``stop``.

    Returns where that subtree starts, and what lies beside the way, the lowest first: whether
    it lies left, its first leaf and its end.
    """
    low, high, beside = 0, size, list[tuple[bool, int, int]]()
    while low < first or high != stop:
        middle = low + (1 << (high - low - 1).bit_length() - 1)  # RFC 6962: the largest power of 2
        if stop <= middle:
            beside.insert(0, (False, middle, high))
            high = middle
        else:
            beside.insert(0, (True, low, middle))
            low = middle
    return low, beside


def _subtree(node: Node, start: int, stop: int) -> bytes:
    """Return the hash over leaves ``start`` to ``stop``, as the tree is cut there."""
    level = (stop - start - 1).bit_length()
    if stop - start == 1 << level:
        return node(level, start >> level)
    middle = start + (1 << level - 1)
    return node_hash(_subtree(node, start, middle), _subtree(node, middle, stop))
