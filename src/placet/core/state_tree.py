"""One root over all records: an authenticated dictionary. Pure (spec/06, section 6).

A trie of 16 branches over the tags of records, with small sorted buckets as leaves. Whoever
knows the root reads any record's digest, or that there is no such record, out of O(log n) nodes
that anybody may have kept: each is compared with the hash in the node above before it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from itertools import groupby

from placet.core.merkle import HASH_SIZE
from placet.errors import VerificationError

TAG_SIZE = 32
NODE_LABEL = b"placet-state-node/1\0"
RECORD_LABEL = b"placet-state-record/1\0"

EMPTY = bytes(HASH_SIZE)
"""The root of no records, and what stands in a node where nothing is below."""

BUCKET = 15
"""Pairs in a leaf at most: one more and it does not fit a cell of SQLite's 4 KiB pages."""

LEAF, INNER = b"\0", b"\1"
_PAIR = TAG_SIZE + HASH_SIZE
_INNER_SIZE = 1 + 16 * HASH_SIZE

TOP = 3
"""Nodes above this depth stay in memory: 273 at most."""
CACHED = 8192
"""Nodes below that stay in memory while there is room."""

Load = Callable[[str], bytes | None]
"""Returns the node at a path, a tag's first hex digits; from wherever, it is checked."""

_Item = tuple[str, bytes, bytes | None]
"""A tag in hex, the tag, and its new digest; None: to be removed."""


def record_digest(version: int, sealed: bytes) -> bytes:
    """Return what the tree holds for a record's tag."""
    return hashlib.sha256(RECORD_LABEL + b"%d\0" % version + sealed).digest()


class StateTree:
    """The tree of one root; `changed` computes another, `adopt` goes on to it.

    Args:
        root: Believed.
        load: Reads nodes.
    """

    def __init__(self, root: bytes, load: Load) -> None:
        self.root, self._load = root, load
        self._top, self._rest = dict[str, bytes](), dict[str, bytes]()

    def get(self, tag: bytes) -> bytes | None:
        """Return the digest of a record; None is as certain: there is none under the root.

        Raises:
            VerificationError: A node is missing, or is another one.
        """
        digits, depth, expected = tag.hex(), 0, self.root
        while expected != EMPTY:
            node = self._node(digits[:depth], expected)
            if node[:1] == LEAF:
                return _pairs(node).get(tag)
            at = 1 + int(digits[depth], 16) * HASH_SIZE
            expected = node[at : at + HASH_SIZE]
            depth += 1
        return None

    def changed(self, digests: Mapping[bytes, bytes | None]) -> tuple[bytes, dict[str, bytes]]:
        """Return root and new nodes of the tree with these digests; None removes.

        Nodes that fell away are not named: no node above leads there any more. An inner node
        stays one when its records go.
        """
        nodes = dict[str, bytes]()
        items = sorted((tag.hex(), tag, digest) for tag, digest in digests.items())
        return (self._write("", self.root, items, nodes) if items else self.root), nodes

    def adopt(self, root: bytes, nodes: Mapping[str, bytes]) -> None:
        """Go on with a tree that `changed` returned, once its nodes are durable."""
        self.root = root
        for path, node in nodes.items():
            self._remember(path, node)

    def _write(self, path: str, old: bytes, items: list[_Item], nodes: dict[str, bytes]) -> bytes:
        """Write ``items`` below ``path``; return the hash that stands for it then."""
        node = LEAF if old == EMPTY else self._node(path, old)
        if node[:1] == LEAF:
            pairs = _pairs(node)
            for _, tag, digest in items:
                if digest is None:
                    pairs.pop(tag, None)
                else:
                    pairs[tag] = digest
            if len(pairs) <= BUCKET:
                return _kept(path, LEAF + b"".join(map(b"".join, sorted(pairs.items()))), nodes)
            items = sorted((tag.hex(), tag, digest) for tag, digest in pairs.items())
            node = INNER + 16 * EMPTY
        below, depth = bytearray(node), len(path)
        for digit, group in groupby(items, key=lambda item: item[0][depth]):
            place = slice(start := 1 + int(digit, 16) * HASH_SIZE, start + HASH_SIZE)
            below[place] = self._write(path + digit, bytes(below[place]), list(group), nodes)
        return _kept(path, bytes(below), nodes)

    def _node(self, path: str, expected: bytes) -> bytes:
        node = (self._top if len(path) < TOP else self._rest).get(path)
        if node is None:
            node = self._load(path)
            if node is None or _hash(node) != expected:
                raise VerificationError("a node of the state tree is not the one under its root")
            self._remember(path, node)
        return node

    def _remember(self, path: str, node: bytes) -> None:
        if len(path) < TOP:
            self._top[path] = node
            return
        self._rest[path] = node
        if len(self._rest) > CACHED:
            del self._rest[next(iter(self._rest))]


def _hash(node: bytes) -> bytes:
    return hashlib.sha256(NODE_LABEL + node).digest()


def _kept(path: str, node: bytes, nodes: dict[str, bytes]) -> bytes:
    if node == LEAF or node == INNER + 16 * EMPTY:
        return EMPTY
    nodes[path] = node
    return _hash(node)


def _pairs(node: bytes) -> dict[bytes, bytes]:
    return {
        node[at : at + TAG_SIZE]: node[at + TAG_SIZE : at + _PAIR]
        for at in range(1, len(node), _PAIR)
    }
