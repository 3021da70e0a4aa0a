"""What a person reads of witnesses: after a promote, after a retire, and of a key."""

from __future__ import annotations

import pytest

from placet.cli.output import PARTLY
from placet.client.constellation import Constellation


def unheard(house, *numbers):
    """Have no witness vouch for some vaults."""
    for number in numbers:
        house.vaults[number - 1].vault.standing.witnessed = lambda: ()


def heard(house):
    """Have them vouch for all again."""
    for served in house.vaults:
        vars(served.vault.standing).pop("witnessed", None)


@pytest.mark.req("I12")
def test_a_report_says_where_witnesses_saw_it(house, monkeypatch):
    """A promote counts without them and says so; a retire does not; `key show` counts them."""
    monkeypatch.setattr(Constellation, "patience", 0.0)
    house.born()
    code = house.staged(2)["code"]
    unheard(house, 2)
    said = house.run("promote", "notes/data", code, "--yes")
    port = house.vaults[1].port
    assert "effective: 5 of 5 vaults confirmed" in said.text
    assert f"witnesses saw it at 4 of 5 vaults that took it; not yet at 2 (127.0.0.1:{port})" in (
        " ".join(said.text.split())
    )
    shown = house.json("key", "show", "notes/data")
    assert [v["witnessed"] for v in shown["vaults"]] == [4, 0, 4, 4, 4]
    assert [v["stands"] for v in shown["vaults"]] == [True, False, True, True, True]
    promote = shown["statements"][-1]
    assert (promote["effective"], promote["unwitnessed"]) == (True, [2])
    text = house.run("key", "show", "notes/data").text
    assert (text.count("4 of 4 (3 needed)"), text.count("0 of 4 (3 needed)")) == (4, 1)

    unheard(house, 1, 2, 3)
    said = house.run("retire", "notes/data", code, "--reason", "bad", "--yes", code=PARTLY)
    assert "waits for witnesses: 5 of 5 vaults took it, 3 needed" in " ".join(said.text.split())
    retire = house.json("key", "show", "notes/data")["statements"][-1]
    assert (retire["type"], retire["confirmed"]) == ("retire", [1, 2, 3, 4, 5])
    assert (retire["effective"], retire["unwitnessed"]) == (False, [1, 2, 3])
    assert "waits for witnesses" in house.run("key", "show", "notes/data").text

    heard(house)
    house.run("key", "sync", "notes/data")
    shown = house.json("key", "show", "notes/data")
    assert (shown["statements"][-1]["effective"], shown["statements"][-1]["unwitnessed"]) == (
        True, [],
    )  # fmt: skip
    assert "waits" not in house.run("key", "show", "notes/data").text
