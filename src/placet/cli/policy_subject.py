"""What is asked about: a policy file, or a key as its vaults show it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from placet.cli.look import look
from placet.cli.output import plain, short, when
from placet.cli.policy_file import PolicyFile, read_policy
from placet.cli.policy_toml import near
from placet.cli.policy_words import Names
from placet.cli.reach import Target
from placet.cli.settings import Home
from placet.core.signer import owner_fingerprint
from placet.core.table import Rules
from placet.errors import MalformedError, NotFoundError
from placet.policy.key_policy import KeyPolicy

ENDING = ".toml"
"""Of a policy file's name; all else names a key."""
AUTO = "placet key auto-migrate on KEY --policy {}"
"""The command that turns on the clause of a policy file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Rules, where they come from, and where a key stands with them."""

    name: str
    """As a heading shows it."""
    argument: str
    """As a shell takes it."""
    rules: Rules
    names: Names
    file: PolicyFile | None = None
    policy: KeyPolicy | None = None
    now: int = 0

    @property
    def fingerprint(self) -> str:
        """Return the owner's fingerprint, which is that at birth for ever."""
        return self.policy.birth_owner if self.policy else owner_fingerprint(self.rules.owner)

    @property
    def young(self) -> frozenset[str]:
        """Return the ids of owner signers that do not count yet."""
        found = self.policy.young if self.policy else ()
        return frozenset(i for i, until in found if until > self.now)

    def ids(self, labels: tuple[str, ...], option: str) -> frozenset[str]:
        """Return the ids of signers that an option names.

        Raises:
            MalformedError: A name is nobody's, or several signers have it.
        """
        return frozenset(self._id(label, option) for label in labels)

    def notes(self) -> list[str]:
        """Return what holds for this key just now and will pass."""
        policy = self.policy
        if policy is None:
            if self.rules.auto_migrate is None:
                return []
            return [f"a key is born without the clause; then: {AUTO.format(self.argument)}"]
        found = [
            f"{self.names.by_id.get(i, short(i))} was added lately and counts from {when(until)}"
            for i, until in policy.young
            if until > self.now
        ]
        if policy.deleted:
            found.append("the owner destroyed this key: nobody can read these data any more")
        if policy.recovery is not None:
            new = self.names.who(policy.recovery.owner)
            found.append(f"a recovery runs: from {when(policy.recovery.ready)} {new} can be owner")
        if policy.promote_from > self.now:
            found.append(f"after a recovery: no promote before {when(policy.promote_from)}")
        if policy.rules.auto_migrate is not None:
            left = policy.rules.auto_migrate.budget - policy.auto_uses
            found.append(f"the auto-migrate clause is on: {left} uses are left")
        return found

    def _id(self, label: str, option: str) -> str:
        found = [i for i, name in self.names.by_id.items() if name == label]
        found = found or [i for i, n in self.names.by_id.items() if n.startswith(f"{label} (")]
        if len(found) != 1:
            raise MalformedError(
                f"{option} {label}: {'several signers have' if found else 'no signer has'} "
                f"that name in {self.name}",
                near(label, self.names.by_id.values()),
            )
        return found[0]


def find_subject(name: str, now: int) -> Subject:
    """Return what a name stands for: a file whose name ends in .toml, or else a key.

    Raises:
        NotFoundError: There is no such file, or no such key.
        MalformedError, UnrepairableError: The file says what cannot be kept.
    """
    if name.endswith(ENDING):
        file = read_policy(Path(name))
        file.check()
        return Subject(
            name=plain(name),
            argument=shlex.quote(name),
            rules=file.rules,
            names=Names.of(file.rules),
            file=file,
            now=now,
        )
    try:
        target = Target.find(Home.find(), name)
    except NotFoundError as e:
        e.hint = f"{e.hint}   (a policy file's name ends in {ENDING})"
        raise
    found = target.visit(lambda v: look(v, target.key), "asking")
    return Subject(
        name=target.name,
        argument=target.argument,
        rules=found.policy.rules,
        names=Names.of(found.policy.rules),
        policy=found.policy,
        now=now,
    )
