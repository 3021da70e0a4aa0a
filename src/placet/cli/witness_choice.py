"""Outside witnesses of a new key: read from options, asked whether they are there, shown."""

from __future__ import annotations

import http.client
import re

import click
import msgspec

from placet.cli.output import Fact, good, odd, short, warn
from placet.client.vaults_file import VaultsFile
from placet.core.limits import LEASE
from placet.core.profile import VaultSet, WitnessMember, check_vault_set
from placet.errors import MalformedError
from placet.policy.continuity import quorum

_form = re.compile(r"(sha256:[0-9a-f]{64})@\[?([^\[\]]+)\]?:([1-9][0-9]{0,4})")
TIMEOUT = 5
MINUTE = 60


class WitnessOption(click.ParamType[WitnessMember]):
    """A command-line value of an outside witness."""

    name = "witness"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> WitnessMember:
        """Return the witness."""
        if isinstance(value, WitnessMember):
            return value
        found = _form.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no witness: write sha256:...@host:port", param, ctx)
        return WitnessMember(id=found[1], endpoint=str(value).partition("@")[2])


def with_witnesses(
    file: VaultsFile, given: tuple[WitnessMember, ...], *, quiet: bool
) -> VaultsFile:
    """Return the vaults file with these witnesses too; say what it could not survive.

    Raises:
        MalformedError: A witness is named twice, or one vault would have nobody to ask.
    """
    found = msgspec.structs.replace(file, witnesses=(*file.witnesses, *given))
    check_vault_set(found.vault_set)
    n, m = found.vault_set.n, len(found.witnesses)
    if n - 1 + m == 0:
        raise MalformedError(
            "one vault without a witness never serves: nobody says that it is the newest",
            "Name a witness, which you can run yourself: placet witness serve",
        )
    spare = n - 1 + m - quorum(n, found.k, m)
    if spare < 1 and not quiet:
        warn(
            f"with {n} vaults and {m} outside witnesses, one of them that is down keeps a vault "
            f"that restarts from serving, and all after {LEASE // MINUTE} minutes: name one more "
            "with --witness, which you can run yourself (placet witness serve)"
        )
    return found


def witness_facts(vault_set: VaultSet, *, live: bool) -> list[Fact]:
    """Return what is shown of a set's witnesses, asked just now if ``live``."""
    facts: list[Fact] = []
    for number, witness in enumerate(vault_set.witnesses, 1):
        line = f"{witness.endpoint}  {short(witness.id)}"
        if live:
            said = _asked(witness)
            line = good(f"{line}  answers") if said == witness.id else odd(f"{line}  {said}")  # type: ignore[assignment]
        facts.append((f"  witness {number}", line))
    return facts


def _asked(witness: WitnessMember) -> str:
    """Return the id that somebody at a witness's address says, or what is wrong."""
    host, _, port = witness.endpoint.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT)
    try:
        connection.request("GET", "/healthz")
        answer = msgspec.json.decode(connection.getresponse().read(4096), type=dict[str, object])
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return "does not answer"
    finally:
        connection.close()
    said = str(answer.get("witness"))
    return said if said == witness.id else "is another witness"
