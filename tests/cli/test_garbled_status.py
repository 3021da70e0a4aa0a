"""A genuine vault may sign any text as its checkpoint: refused as that vault's, in two lines."""

from __future__ import annotations

import msgspec
import pytest

from placet.core.dsse import sign_record
from placet.core.encoding import decode, unb64
from placet.core.messages import StatusBody

GARBLED = ["", "one line", "placet/x\nmany\n", "a\n-1\nb\n"]


@pytest.fixture(params=GARBLED)
def garbled(house, request):
    """Return a house whose second vault signs a status with such a checkpoint."""
    house.born()
    served = house.vaults[1]
    status = served.vault.status

    def sign(nonce):
        said = status(nonce)
        body = decode(unb64(said.status.payload), StatusBody)
        body = msgspec.structs.replace(body, checkpoint=request.param)
        return msgspec.structs.replace(said, status=sign_record(body, served.identity.key))

    served.vault.status = sign
    return house


def test_doctor_names_that_vault_and_goes_on(garbled):
    """What does not parse is no answer; the others are examined all the same."""
    (key,) = garbled.json("doctor", "notes/data", code=None)["keys"]
    assert [v["number"] for v in key["vaults"] if not v["answered"]] == [2]
    assert ("unreachable", 2) in [(f["what"], f["vault"]) for f in key["findings"]]


def test_a_look_at_that_vault_says_what_is_wrong(garbled):
    """A reason, and no stack trace."""
    endpoint = garbled.vaults[1].member.endpoint
    said = garbled.run(
        "vault", "show", endpoint, "--vaults", garbled.folder / "vaults.json", code=2
    )
    assert said.err.startswith("placet:")
