"""Read a vault's log for a collector: write what was checked, then remember how far it is written.

What is checked: spec/11, section 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from msgspec.structs import replace

from placet.attest.trust import trust_from_config
from placet.cli.files import local_files, read_bytes
from placet.cli.lines import LineWriter
from placet.cli.live import roots_of
from placet.cli.memory import keep_proof, remembered
from placet.cli.output import brief, exit_code, show_error, warn
from placet.cli.reach import connector
from placet.client.journal import Follower, Page, Place, read_place, write_place
from placet.client.vault_client import VaultClient
from placet.client.vaults_file import VaultsFile
from placet.client.whole_files import write_whole
from placet.core.encoding import encode
from placet.core.limits import MAX_BODY
from placet.errors import (
    InternalError,
    NotFoundError,
    PlacetError,
    UnavailableError,
)
from placet.ratls.exchange import ExpectVault, UnsafeExpectAnyVault

LONGEST_WAIT = 3600
"""Seconds that a vault may have us wait, at most."""


@dataclass(slots=True)
class Told:
    """What is said beside the lines, on standard error."""

    as_json: bool
    away: bool = False
    """Whether it was said that the vault is away."""

    def notice(self, text: str) -> None:
        """Say something that asks for nothing."""
        if self.as_json:
            click.echo(json.dumps({"notice": text}), err=True)
        else:
            warn(text)

    def waits(self, error: PlacetError) -> None:
        """Say once that the vault is waited for."""
        if not self.away:
            self.notice(f"waiting for the vault: {brief(error)}")
        self.away = True

    def back(self) -> None:
        """Say that it is back, if it was away."""
        if self.away:
            self.notice("the vault answers again: going on where it was left")
        self.away = False

    def problem(self, error: PlacetError) -> int:
        """Say why this ends; return the exit code."""
        if self.as_json:
            click.echo(json.dumps(error.problem()), err=True)
        else:
            show_error(error)
        return exit_code(error)


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of the command."""

    endpoint: str
    listed: tuple[VaultsFile, ...]
    since: int
    state: Path | None
    out: LineWriter
    told: Told
    follower: Follower | None = None
    opened: list[VaultClient] = field(default_factory=list)

    async def once(self) -> None:
        """Write what there is."""
        try:
            async for page in self.pages():
                await self.write(page)
        finally:
            self.close()

    async def follow(self, every: float) -> None:
        """Write what there is and what comes; wait for a vault that is away."""
        try:
            while True:
                pause = every
                try:
                    async for page in self.pages():
                        await self.write(page)
                    self.told.back()
                except (UnavailableError, InternalError) as e:
                    self.told.waits(e)
                    pause = max(every, _told_to_wait(e))
                await asyncio.sleep(pause)
        finally:
            self.close()

    def close(self) -> None:
        """Close all connections."""
        while self.opened:
            self.opened.pop().close()

    async def pages(self) -> AsyncIterator[Page]:
        """Yield what is new."""
        if self.follower is None:
            self.follower = await self._begin()
        async for page in self.follower.more():
            yield page

    async def write(self, page: Page) -> None:
        """Write a page, then remember how much of it is written, however that ends."""
        before = self.out.count
        try:
            await self.out.write([encode(line) + b"\n" for line in page.lines])
        finally:
            if self.out.count > before:
                self._remember(page.after(self.out.count - before))

    def _remember(self, place: Place) -> None:
        if self.state is not None:
            with local_files():
                write_whole(self.state, write_place(place))

    async def _begin(self) -> Follower:
        self.close()  # what an earlier try left
        place = None
        if self.state is not None and self.state.exists():
            place = read_place(read_bytes(self.state, MAX_BODY))
        vault = await self._vault(None if place is None else place.vault)
        if place is not None:
            return Follower(vault, place, os.urandom, keep_proof)
        follower = await Follower.begin(vault, self.since, os.urandom, keep_proof)
        before = remembered(follower.place.head)
        if before is not None:  # Other commands met this vault, maybe when its log was longer.
            follower.place = replace(follower.place, head=before)
        return follower

    async def _vault(self, known: str | None) -> VaultClient:
        """Return the vault that is listed: by its id, if that is known, or where it answers."""
        roots = roots_of(self.listed)
        members = [m for file in self.listed for m in file.vaults]
        at = [m.id for m in members if m.endpoint == self.endpoint]
        if known is None and roots:
            known = at[0] if at else await self._proven(UnsafeExpectAnyVault(
                trust=trust_from_config(roots)
            ))  # fmt: skip
        naming = [file for file in self.listed if known in {m.id for m in file.vaults}]
        if known is None or not naming:
            raise NotFoundError(
                f"no vaults file that is known here lists the vault at {self.endpoint}",
                "Name one: --vaults FILE. To make one: placet vault show HOST:PORT --add FILE",
            )
        # 5.1 This one, with such code, on every connection.
        profiles = tuple(p for file in naming for p in file.profiles)
        trust = trust_from_config(roots_of(naming))
        return self._client(ExpectVault(id=known, profiles=profiles, trust=trust))

    async def _proven(self, whoever: UnsafeExpectAnyVault) -> str:
        return (await self._client(whoever).identity()).claims.instance

    def _client(self, expect: ExpectVault | UnsafeExpectAnyVault) -> VaultClient:
        self.opened.append(connector().vault(self.endpoint, expect))
        return self.opened[-1]


async def until_told(run: Run, every: float) -> None:
    """Follow until a signal comes, or nobody reads any more."""
    loop = asyncio.get_running_loop()
    following = asyncio.create_task(run.follow(every))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, following.cancel)
    with run.out.watched(following.cancel), contextlib.suppress(asyncio.CancelledError):
        await following


def _told_to_wait(error: PlacetError) -> float:
    """Return the seconds that a vault wants us to wait; it may say anything."""
    wait = error.members.get("retry_after")
    return min(wait, LONGEST_WAIT) if isinstance(wait, int | float) and wait > 0 else 0
