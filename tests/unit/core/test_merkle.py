"""The tree of spec/06, section 4: known vectors of RFC 6962, and a naive reading of its text."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placet.core.encoding import decode, encode
from placet.core.merkle import (
    Frontier,
    FrontierRecord,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from placet.errors import MalformedError, VerificationError

# The eight leaves and the roots of the reference implementation's tests
# (github.com/google/certificate-transparency, merkle_tree_test).
LEAVES = [
    bytes.fromhex(data)
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATH_0_OF_8 = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
GROWTH_6_TO_8 = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]

SIZES = st.integers(min_value=1, max_value=70)


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH as RFC 6962 section 2.1 writes it, over leaf hashes."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def leaves_of(size: int) -> list[bytes]:
    """Return distinct leaf hashes."""
    return [leaf_hash(b"%d" % i) for i in range(size)]


def nodes_of(leaves: list[bytes]):
    """Return the complete nodes over ``leaves``, naively."""
    return lambda level, at: naive_root(leaves[at << level : (at + 1) << level])


def frontier_of(leaves: list[bytes]) -> Frontier:
    """Append one by one."""
    tree = Frontier()
    for leaf in leaves:
        tree = tree.append(leaf)
    return tree


def test_roots_are_those_of_the_reference_implementation():
    """Nine sizes, empty tree included."""
    leaves = [leaf_hash(data) for data in LEAVES]
    assert [frontier_of(leaves[:n]).root().hex() for n in range(9)] == ROOTS


def test_proofs_are_those_of_the_reference_implementation():
    """One audit path and one consistency proof, frozen."""
    node = nodes_of([leaf_hash(data) for data in LEAVES])
    assert [h.hex() for h in inclusion_proof(node, 0, 8)] == PATH_0_OF_8
    assert [h.hex() for h in consistency_proof(node, 6, 8)] == GROWTH_6_TO_8


@given(SIZES)
def test_frontier_agrees_with_the_naive_tree(size: int):
    """The root, the nodes completed on the way, and the stored form."""
    leaves = leaves_of(size)
    before = frontier_of(leaves[:-1])
    tree = before.append(leaves[-1])
    node = nodes_of(leaves)

    assert tree.root() == naive_root(leaves)
    for level, completed in enumerate(before.completed(leaves[-1])):
        assert completed == node(level, (size - 1) >> level)
    raw = encode(tree.to_record())
    assert Frontier.from_record(decode(raw, FrontierRecord)) == tree


@given(SIZES, st.data())
def test_inclusion_proof_holds_and_any_change_breaks_it(size: int, data):
    """Of every leaf in every tree; another leaf, place, size or path is refused."""
    index = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)
    root = naive_root(leaves)
    proof = inclusion_proof(nodes_of(leaves), index, size)

    verify_inclusion(leaves[index], index, size, proof, root)
    wrong = {
        "another leaf": (leaf_hash(b"x"), index, size, proof, root),
        "another root": (leaves[index], index, size, proof, leaf_hash(b"x")),
        "longer": (leaves[index], index, size, (*proof, root), root),
        "before the first": (leaves[index], -1, size, proof, root),
        "after the last": (leaves[index], size, size, proof, root),
    }
    if proof:
        wrong["shorter"] = (leaves[index], index, size, proof[:-1], root)
        wrong["other path"] = (leaves[index], index, size, (root, *proof[1:]), root)
        wrong["neighbour's place"] = (leaves[index], index ^ 1, size, proof, root)
    for arguments in wrong.values():
        with pytest.raises(VerificationError):
            verify_inclusion(*arguments)


@given(SIZES, st.data())
def test_consistency_proof_holds_and_any_change_breaks_it(new: int, data):
    """From every size to every size; a rewritten or shortened log is refused."""
    old = data.draw(st.integers(0, new))
    leaves = leaves_of(new)
    was, now = naive_root(leaves[:old]), naive_root(leaves)
    proof = consistency_proof(nodes_of(leaves), old, new)

    verify_consistency(old, new, was, now, proof)
    wrong = {
        "another old root": (old, new, leaf_hash(b"x"), now, proof),
        "longer": (old, new, was, now, (*proof, now)),
        "backwards": (new + 1, new, was, now, proof),
        "negative": (-1, new, was, now, proof),
    }
    if old:
        wrong["another new root"] = (old, new, was, leaf_hash(b"x"), proof)
    if proof:
        wrong["none"] = (old, new, was, now, ())
        wrong["shorter"] = (old, new, was, now, proof[:-1])
        wrong["other path"] = (old, new, was, now, (leaf_hash(b"x"), *proof[1:]))
        rewritten = [leaf_hash(b"rewritten"), *leaves[1:]]
        wrong["rewritten"] = (
            *(old, new, was, naive_root(rewritten)),
            consistency_proof(nodes_of(rewritten), old, new),
        )
    for arguments in wrong.values():
        with pytest.raises(VerificationError):
            verify_consistency(*arguments)


def test_empty_tree_has_one_root():
    """Nothing grows out of nothing, under no other root."""
    empty = Frontier().root()
    verify_consistency(0, 0, empty, empty, ())
    with pytest.raises(VerificationError):
        verify_consistency(0, 0, empty, leaf_hash(b"x"), ())


def test_proof_cut_at_other_lengths_is_refused():
    """Two siblings glued into one, and nothing for the other, hash to the same node."""
    leaves = leaves_of(3)
    root = naive_root(leaves)
    with pytest.raises(VerificationError):
        verify_inclusion(b"", 2, 3, (node_hash(*leaves[:2]) + leaves[2],), root)
    with pytest.raises(VerificationError):
        verify_consistency(2, 3, naive_root(leaves[:2]), root, (leaves[2], b""))


def test_proofs_of_what_is_not_there_are_the_callers_mistake():
    """A ValueError, never a proof."""
    node = nodes_of(leaves_of(4))
    with pytest.raises(ValueError, match="leaf 4"):
        inclusion_proof(node, 4, 4)
    with pytest.raises(ValueError, match="one of 5"):
        consistency_proof(node, 5, 4)


@pytest.mark.parametrize(
    "record",
    [
        FrontierRecord(size=1, hashes=()),
        FrontierRecord(size=2, hashes=("AA",)),
        FrontierRecord(size=0, hashes=("A" * 43,)),
    ],
)
def test_frontier_that_does_not_fit_its_size_is_refused(record: FrontierRecord):
    """Too few hashes, a short one, one too many."""
    with pytest.raises(MalformedError):
        Frontier.from_record(record)
