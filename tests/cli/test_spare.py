"""A file that is there and that no earlier try wrote is not made anybody's spare, nor touched."""

from __future__ import annotations

import msgspec
import pytest
from placet_testing.charters import person

FOREIGN = {
    "somebody's key": lambda path: person("stranger").save(path),
    "no key": lambda path: path.write_bytes(b"notes of somebody\n"),
    "nothing in it": lambda path: path.touch(),
}


@pytest.mark.req("I16")
@pytest.mark.parametrize("noted", [False, True], ids=["", "after another try"])
@pytest.mark.parametrize("command", ["init", "add"])
@pytest.mark.parametrize("write", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_refused_and_left(empty, write, command, noted):
    """Even where a try that was killed noted a key, which never came to be in that file."""
    file, note = empty.folder / "spare.pem", empty.home / "spare.json"
    if command == "add":
        empty.run("owner", "init")
    if noted:
        note.write_bytes(msgspec.json.encode(person("never").signer))
    write(file)
    before, was = empty.run("owner", "show", code=None), file.read_bytes()
    said = empty.run("owner", command, "--spare", file, code=2)
    assert str(file) in said.text
    assert (file.read_bytes(), list(file.parent.glob(".*"))) == (was, [])
    assert empty.run("owner", "show", code=None) == before
    assert note.exists() == noted
    file.unlink()
    empty.run("owner", command, "--spare", file)
    assert len(empty.json("owner", "show")["principal"]["of"]) == 2
