"""What the owner's tool keeps: a key that approves, constellations, keys that it knows.

``$PLACET_HOME`` holds everything; without it, the XDG folders do:

    config.toml            names the owner's key and constellations (XDG_CONFIG_HOME)
    owner.pem  owner.json  the private key, and the principal that it is part of
    authenticators.json    passkeys and security keys that can be asked here
    constellations/*.json  vaults files: where vaults are and what may vouch for them
    keys/*.json            a key's label, birth statement and constellation
    charters/*.json        a key's newest charter, where it names other vault code than the birth
    outbox/*.json          what was signed here, until vaults show it

Only ``owner.pem`` is secret. Nothing else decides anything: vaults and key ids are
verified each time. Paths in ``config.toml`` start at the folder of ``owner.pem``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from placet.cli.files import load_key, local_files, read_bytes, read_json, vaults_file, write_json
from placet.cli.passkey_kept import PORT, Authenticator, Kept, Pen, pen_id
from placet.client.following import CharterCopy
from placet.client.signing import SigningKey
from placet.client.vaults_file import VaultsFile, write_vaults
from placet.client.whole_files import write_whole
from placet.core.encoding import Record, Sha256
from placet.core.limits import MAX_RECORD
from placet.core.messages import CourierItem
from placet.core.signer import Threshold, owner_fingerprint, signer_id
from placet.core.statement import SignedStatement, UntrustedStatement, open_statement
from placet.errors import ConflictError, MalformedError, NotFoundError
from placet.policy.principal import leaves

R = TypeVar("R")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
LEAST = 6
"""Characters of the shortest prefix that is taken for a name."""


class OwnerEntry(Record):
    """``[owner]`` of ``config.toml``."""

    key: str = "owner.pem"
    principal: str = "owner.json"
    authenticators: str = "authenticators.json"
    page_port: int = PORT
    """Loopback port of approval pages whose origin is not on localhost."""


class ConstellationEntry(Record):
    """``[constellations.NAME]`` of ``config.toml``."""

    vaults: str


class Config(Record):
    """``config.toml``."""

    owner: OwnerEntry = OwnerEntry()
    constellations: dict[str, ConstellationEntry] = msgspec.field(default_factory=dict)


class KnownKey(Record, kw_only=True):
    """A key that this tool gave birth to, or was told of."""

    schema: Literal[1] = 1
    key: Sha256
    label: str
    constellation: str
    birth: SignedStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The principal that births name, and what of it can sign here."""

    principal: Threshold
    key: Pen
    """What signs unless another is named."""
    pens: tuple[Pen, ...]
    """All that can sign here, some of which may be in no principal yet."""
    path: Path
    """Where the key file is, or would be."""

    @property
    def fingerprint(self) -> str:
        """Return what a workload's measured config must name."""
        return owner_fingerprint(self.principal)


@dataclass(frozen=True, slots=True)
class Home:
    """The folders.

    Args:
        config: Where ``config.toml`` is.
        data: Where everything else is.
    """

    config: Path
    data: Path

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> Home:
        """Return the folders that this user's environment names; they need not exist."""
        if home := environment.get("PLACET_HOME"):
            return cls(Path(home), Path(home))
        user = Path(environment.get("HOME") or Path.home())
        config = environment.get("XDG_CONFIG_HOME") or user / ".config"
        data = environment.get("XDG_DATA_HOME") or user / ".local" / "share"
        return cls(Path(config) / "placet", Path(data) / "placet")

    @property
    def file(self) -> Path:
        """Return the path of ``config.toml``."""
        return self.config / "config.toml"

    def settings(self) -> Config:
        """Return what ``config.toml`` says; without one, nothing."""
        if not self.file.exists():
            return Config()
        try:
            said = tomllib.loads(read_bytes(self.file).decode())
            return msgspec.convert(said, Config)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
            raise MalformedError(f"{self.file} cannot be read: {e}", f"Mend it: {self.file}") from e

    # --- the owner ---------------------------------------------------------------------

    def owner(self, signer: str | None = None) -> Owner:
        """Return the owner who can sign here.

        Args:
            signer: Label, or beginning of the id, of the one that shall; else the usual one.

        Raises:
            NotFoundError: There is none yet.
            MalformedError: Its files do not fit each other; or which signer is not clear.
        """
        entry = self.settings().owner
        path, kept = self.data / entry.key, self._kept()
        file = (load_key(path),) if path.exists() else ()
        pens: tuple[Pen, ...] = (*file, *kept.authenticators)
        if not pens:
            raise NotFoundError(f"there is no owner key at {path}", "Make one: placet owner init")
        who = read_json(self.data / entry.principal, Threshold, "owner principal")
        names = {signer_id(s): s.label for s in leaves(who)}
        if signer is None:
            usual = [p for p in pens if pen_id(p) == kept.use]
            chosen = (usual or list(pens))[0]
        else:
            chosen = the_one(
                [
                    p
                    for p in pens
                    if signer in (names.get(pen_id(p)), p.signer.label)
                    or (len(_bare(signer)) >= LEAST and _bare(pen_id(p)).startswith(_bare(signer)))
                ],
                signer,
                "signer",
                lambda p: f"{names.get(pen_id(p), p.signer.label)} {pen_id(p)}",
                "placet owner show",
            )
        return Owner(principal=who, key=chosen, pens=pens, path=path)

    def check_no_owner(self) -> None:
        """Raise if there is an owner here already: none is ever written over."""
        entry = self.settings().owner
        for path in (self.data / entry.key, self.data / entry.authenticators):
            if path.exists():
                raise ConflictError(
                    f"{path} exists: this owner has a key, and it is not written over",
                    "See it: placet owner show. "
                    "For another owner, set PLACET_HOME to a new folder.",
                )

    def add_owner(
        self,
        key: SigningKey | None,
        principal: Threshold,
        authenticators: tuple[Authenticator, ...] = (),
    ) -> Owner:
        """Keep a new owner: its principal, then what signs for it here."""
        self.check_no_owner()
        entry = self.settings().owner
        write_json(self.data / entry.principal, principal)
        if authenticators:
            self._keep(Kept(authenticators=authenticators))
        if key is not None:
            with local_files():
                key.save(self.data / entry.key)
        return self.owner()

    def add_signer(self, made: Authenticator | None, principal: Threshold | None) -> Owner:
        """Keep one more authenticator, a changed principal, or both."""
        kept = self._kept()
        if principal is not None:
            write_json(self.data / self.settings().owner.principal, principal)
        if made is not None:
            self._keep(msgspec.structs.replace(kept, authenticators=(*kept.authenticators, made)))
        return self.owner()

    def use(self, signer: str) -> Owner:
        """Have a signer of this machine sign from now on, unless another is named."""
        chosen = self.owner(signer)
        self._keep(msgspec.structs.replace(self._kept(), use=pen_id(chosen.key)))
        return chosen

    def _kept(self) -> Kept:
        path = self.data / self.settings().owner.authenticators
        return read_json(path, Kept, "list of authenticators") if path.exists() else Kept()

    def _keep(self, kept: Kept) -> None:
        write_json(self.data / self.settings().owner.authenticators, kept)

    # --- constellations ----------------------------------------------------------------

    def constellation(self, name: str) -> VaultsFile:
        """Return the vaults file of a named constellation."""
        entry = self.settings().constellations.get(name)
        if entry is None:
            names = ", ".join(sorted(self.settings().constellations)) or "none"
            raise NotFoundError(
                f"{self.file} names no constellation {name!r}; it names: {names}",
                "Name one as placet key new LABEL --vaults FILE does.",
            )
        return vaults_file(self.data / entry.vaults)

    def add_constellation(self, name: str, vaults: VaultsFile) -> None:
        """Keep a vaults file under a name. Addresses and new releases may change, vaults may not.

        Raises:
            MalformedError: The name cannot be one.
            ConflictError: It names other vaults or roots, or forgets code.
        """
        if not NAME.fullmatch(name):
            raise MalformedError(
                f"{name!r} is no name for a constellation",
                "Take letters, digits, - and _: --constellation NAME",
            )
        known = self.settings().constellations
        if name in known:
            before = self.constellation(name)
            fewer = not set(before.profiles) <= set(vaults.profiles)
            if fewer or _fixed(before) != _fixed(vaults):
                raise ConflictError(
                    f"constellation {name!r} is already the name of other vaults",
                    "Give this one a name of its own: --constellation NAME",
                )
            path = self.data / known[name].vaults
        else:
            path = self.data / "constellations" / f"{name}.json"
        with local_files():
            write_vaults(path, vaults)
            if name not in known:
                self._name(name)

    def _name(self, constellation: str) -> None:
        """Add a constellation to ``config.toml``, whose other lines are the owner's own."""
        entry = (
            f'[constellations.{constellation}]\nvaults = "constellations/{constellation}.json"\n'
        )
        file = self.file.resolve()  # It may be a link to where the owner keeps such files.
        text, mode = "", 0o644
        if file.exists():
            text, mode = file.read_text(encoding="utf-8"), file.stat().st_mode & 0o777
            text += "\n" if text.endswith("\n") or not text else "\n\n"
        write_whole(file, (text + entry).encode(), mode=mode)

    # --- keys --------------------------------------------------------------------------

    def known_keys(self) -> tuple[KnownKey, ...]:
        """Return the keys that are known here, by label."""
        files = sorted((self.data / "keys").glob("*.json"))
        found = [read_json(f, KnownKey, "known key") for f in files]
        return tuple(sorted(found, key=lambda k: (k.label, k.key)))

    def key(self, name: str) -> KnownKey:
        """Return a known key by its label, its id, or a unique prefix of either."""
        keys = self.known_keys()
        exact = [k for k in keys if name in (k.label, k.key, _bare(k.key))]
        near = [
            k
            for k in keys
            if k.label.startswith(name)
            or (len(_bare(name)) >= LEAST and _bare(k.key).startswith(_bare(name)))
        ]
        whole = name.startswith("sha256:") and len(name) == len("sha256:") + 64
        if whole and not exact:
            raise NotFoundError(
                f"key {name} is not known here",
                f"Get to know it, wherever it was born: placet key add {name} --vaults FILE",
            )
        return the_one(exact or near, name, "key", _named, "placet key list")

    def remember(self, key: KnownKey) -> None:
        """Keep a key."""
        write_json(self.data / "keys" / f"{_bare(key.key)}.json", key)

    def forget(self, key: KnownKey) -> None:
        """Let go of a key, and of what was signed for it and is not delivered."""
        for path, _ in self.outbox(key.key):
            path.unlink(missing_ok=True)
        for folder in ("keys", "charters"):
            (self.data / folder / f"{_bare(key.key)}.json").unlink(missing_ok=True)

    def charter(self, key: KnownKey) -> tuple[CourierItem, ...]:
        """Return the newest charter that was kept here; at least the birth. *Not* verified."""
        path = self.data / "charters" / f"{_bare(key.key)}.json"
        try:
            kept = read_json(path, CharterCopy, "charter", MAX_RECORD).chain
        except (NotFoundError, MalformedError):
            return (CourierItem(signed=key.birth, receipts=()),)
        return kept

    def keep_charter(self, key: KnownKey, items: Sequence[CourierItem]) -> None:
        """Keep a key's charter, to know its vaults by when they run other code than at birth.

        Of two the one is kept that has more statements, or as many and more receipts.
        """
        if _much(items) > _much(self.charter(key)):
            copy = CharterCopy(chain=tuple(items))
            write_json(self.data / "charters" / f"{_bare(key.key)}.json", copy)

    # --- what was signed and is not everywhere yet ---------------------------------------

    def outbox(self, key: str) -> Iterator[tuple[Path, UntrustedStatement]]:
        """Return what was signed here for a key and is kept until vaults show it."""
        for path in sorted((self.data / "outbox").glob("*.json")):
            sent = open_statement(read_json(path, SignedStatement, "signed statement"))
            if sent.key == key:
                yield path, sent

    def post(self, sent: UntrustedStatement) -> Path:
        """Keep a signed statement before it is sent, so that sending can be completed (I16)."""
        path = self.data / "outbox" / f"{_bare(sent.digest)}.json"
        write_json(path, sent.signed())
        return path


def the_one(found: Iterable[R], name: str, what: str, show: Callable[[R], str], see: str) -> R:
    """Return the only match of a name.

    Raises:
        NotFoundError: There is none.
        MalformedError: There are several; they are listed by ``show``.
    """
    matches = list(found)
    if not matches:
        raise NotFoundError(f"no {what} is known as {name!r}", f"See what there is: {see}")
    if len(matches) > 1:
        listed = "; ".join(map(show, matches))
        raise MalformedError(
            f"{name!r} could be {len(matches)} {what}s: {listed}", "Write more of it."
        )
    return matches[0]


def _named(key: KnownKey) -> str:
    return f"{key.label} {key.key}"


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _much(items: Sequence[CourierItem]) -> tuple[int, int]:
    return len(items), sum(len(i.receipts) for i in items)


def _fixed(vaults: VaultsFile) -> object:
    members = [(m.id, m.domain) for m in vaults.vaults]
    return (vaults.k, members, vaults.trust_roots)
