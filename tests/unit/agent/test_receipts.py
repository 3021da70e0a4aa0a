"""What an app keeps of its vaults' receipts: durable, one a line, bounded (spec/08, section 4)."""

from __future__ import annotations

from pathlib import Path

import pytest
from placet_testing.charters import vault_key

from placet.agent.receipts import MOST, RECEIPTS, keep_receipts
from placet.core.dsse import Signed, sign_record
from placet.core.encoding import decode
from placet.core.messages import Released
from placet.errors import MalformedError, UnavailableError

DIGEST = "sha256:" + "01" * 32


def receipt(index: int) -> Signed:
    """Return what a vault signs when it lets a share go."""
    released = Released(
        vault=DIGEST,
        key=DIGEST,
        manifest=DIGEST,
        statement=DIGEST,
        version=1,
        code=DIGEST,
        recipient=DIGEST,
        index=index,
        time=1,
    )
    return sign_record(released, vault_key(1))


def kept(folder: Path, name: str = RECEIPTS) -> list[Signed]:
    """Return the receipts of a file, without what is none."""
    found = []
    for line in (folder / name).read_bytes().splitlines():
        try:
            found.append(decode(line, Signed))
        except MalformedError:
            continue
    return found


def test_receipts_are_added_to_those_before(tmp_path: Path) -> None:
    """Every boot adds its own, in order; none adds nothing."""
    keep_receipts(tmp_path, ())
    assert not (tmp_path / RECEIPTS).exists()
    keep_receipts(tmp_path, (receipt(0), receipt(1)))
    keep_receipts(tmp_path, (receipt(2),))
    assert kept(tmp_path) == [receipt(0), receipt(1), receipt(2)]


@pytest.mark.req("I16")
@pytest.mark.parametrize("cut", [1, 40])
def test_what_a_crash_cut_off_spoils_no_other_line(tmp_path: Path, cut: int) -> None:
    """The half line stays what it is: nobody's receipt."""
    keep_receipts(tmp_path, (receipt(0), receipt(1)))
    path = tmp_path / RECEIPTS
    path.write_bytes(path.read_bytes()[:-cut])
    keep_receipts(tmp_path, (receipt(2),))
    whole = [receipt(0)] if cut > 1 else [receipt(0), receipt(1)]
    assert kept(tmp_path) == [*whole, receipt(2)]


def test_the_file_is_bounded_and_its_forerunner_is_kept(tmp_path: Path) -> None:
    """At a megabyte a new file begins; the one before stays beside it."""
    path = tmp_path / RECEIPTS
    path.write_bytes(b"x" * (MOST - 1) + b"\n")
    keep_receipts(tmp_path, (receipt(7),))
    assert kept(tmp_path) == [receipt(7)]
    assert (tmp_path / f"{RECEIPTS}.old").stat().st_size == MOST


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path) -> None:
    """A typed problem that names the file."""
    (tmp_path / RECEIPTS).mkdir()
    with pytest.raises(UnavailableError, match=RECEIPTS):
        keep_receipts(tmp_path, (receipt(0),))
