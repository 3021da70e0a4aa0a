"""``placet collateral``: fetch it, keep it fresh, and show until when it counts.

This is the courier of an otherwise offline verifier: vaults read the folder that it
fills, and verify all of it themselves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from placet.attest.collateral_folder import needs
from placet.attest.trust import TrustAnchor, trust_from_config
from placet.attest.verify.snp import KEYS, split
from placet.cli.arguments import DURATION, FILE
from placet.cli.collateral_checks import Genuine, check_genuine
from placet.cli.collateral_courier import Courier, Outcome, watch_folder
from placet.cli.collateral_files import (
    IntelItem,
    Item,
    item_of,
    items_in,
    read_file,
    wanted_in,
)
from placet.cli.evidence_files import read_evidence, trusted
from placet.cli.files import read_bytes, read_json
from placet.cli.output import (
    DONE,
    FINDINGS,
    PARTLY,
    Cell,
    bad,
    exit_code,
    good,
    hint,
    json_option,
    moment,
    odd,
    print_json,
    reported,
    show_table,
    warn,
)
from placet.cli.vendors import KDS, PCS, TIMEOUT, Amd, Intel, Web
from placet.core.config import TrustRoot
from placet.errors import MalformedError, NotFoundError, PlacetError

SOON = 3 * 86400
"""Seconds before its end in which collateral is a finding."""
FOLDER = click.Path(path_type=Path, file_okay=False)
ROOT = click.option(
    "--root", type=FILE, metavar="FILE", help="A root in place of the vendors': JSON, PEM or DER."
)
TCB_SIGNER = click.option("--tcb-signer", default="", help="Who signs under that certificate.")


@click.group()
def collateral() -> None:
    """Fetch what vendors say about platforms, and show until when it counts."""


@collateral.command()
@click.option("--into", type=FOLDER, required=True, metavar="FOLDER", help="Where it is kept.")
@click.option(
    "--evidence", type=FILE, multiple=True, metavar="FILE", help="What this needs. Repeatable."
)
@click.option("--fmspc", metavar="HEX", help="What this CPU family of Intel's needs.")
@click.option("--tee", type=click.Choice(["sgx", "tdx"]), default="tdx", show_default=True)
@click.option(
    "--ca", type=click.Choice(["platform", "processor"]), default="platform", show_default=True
)
@click.option("--wanted", is_flag=True, help="What vaults asked for in FOLDER/wanted.")
@click.option("--pcs", default=PCS, metavar="URL", show_default=True, help="PCS or PCCS.")
@click.option("--root-crl", metavar="URL", help="Intel's root CRL; by default where it belongs.")
@click.option("--kds", default=KDS, metavar="URL", show_default=True, help="AMD's KDS.")
@click.option(
    "--update",
    type=click.Choice(["standard", "early"]),
    default="standard",
    show_default=True,
    help="Intel's update channel.",
)
@ROOT
@TCB_SIGNER
@click.option(
    "--timeout", type=DURATION, default=f"{TIMEOUT}s", show_default=True, help="For one answer."
)
@click.option("--watch", type=DURATION, metavar="SPAN", help="Go on, and look this often.")
@json_option
@reported
def fetch(  # noqa: PLR0913 - every option is an argument
    *,
    into: Path,
    evidence: tuple[Path, ...],
    fmspc: str | None,
    tee: str,
    ca: str,
    wanted: bool,
    pcs: str,
    root_crl: str | None,
    kds: str,
    update: str,
    root: Path | None,
    tcb_signer: str,
    timeout: int,
    watch: int | None,
    as_json: bool,
) -> int:
    r"""Fetch collateral from Intel and AMD into a folder that vaults read.

    Whatever is named is fetched: by evidence, by CPU family, or by what vaults asked for.
    Where nothing is named, everything in the folder is fetched again. It is verified before
    it is written, and nothing newer is replaced by something older. Proxies are taken from
    the environment. For a vault without a network, carry the folder there.

    With --watch it goes on: what is in the folder is fetched again when half of its time is
    over, what vaults want as they ask.

    \b
    Exit codes: 0 all is there, 3 refused, 4 no answer, 5 some of it.

    \b
    Examples:
      placet collateral fetch --into collateral --evidence quote.bin
      placet collateral fetch --into collateral --fmspc b0c06f000000 --tee tdx
      placet collateral fetch --into collateral --wanted --watch 1m
    """
    if watch is not None and as_json:
        raise MalformedError("--watch never ends, and --json prints one document")
    web = Web(timeout=timeout)
    courier = Courier(
        folder=into,
        anchors=anchors_of(root, tcb_signer),
        intel=Intel(web=web, base=pcs, root_crl=root_crl, update=update),
        amd=Amd(web=web, base=kds),
    )
    named = [item for path in evidence for item in _items_of(path)]
    named += [] if fmspc is None else [_family(tee, fmspc, ca)]
    if watch is not None:
        watch_folder(courier, named, watch)
    asked = [*named, *(wanted_in(into) if wanted else ())]
    outcomes = courier.fetch(dict.fromkeys(asked if named or wanted else items_in(into)))
    if as_json:
        print_json([outcome.document() for outcome in outcomes])
    else:
        _show(outcomes)
    return _code(outcomes)


def _show(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        outcome.show()
    if not outcomes:
        warn("nothing was named or asked for, and nothing is to be fetched again")


@collateral.command()
@click.argument("folder", type=FOLDER)
@ROOT
@TCB_SIGNER
@json_option
@reported
def show(*, folder: Path, root: Path | None, tcb_signer: str, as_json: bool) -> int:
    r"""Show what is in a folder of collateral, and until when it counts.

    Exit code 1 when something is not genuine, has ended or ends within three days.

    \b
    Example:
      placet collateral show collateral
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"{folder} is no folder", f"Fill one: placet collateral fetch --into {folder}"
        )
    now, anchors = int(time.time()), anchors_of(root, tcb_signer)
    rows = [Row.read(folder, item, anchors, now) for item in items_in(folder)]
    missing = [item for item in wanted_in(folder) if read_file(folder / item.name) is None]
    if as_json:
        print_json(
            {
                "files": [row.document() for row in rows],
                "wanted": [item.name for item in missing],
            }
        )
    else:
        columns = ("file", "what", "evaluation", "ends (UTC)", "left", "")
        show_table("", columns, [row.cells() for row in rows])
        if missing:
            warn(f"vaults asked for {len(missing)} more: {', '.join(i.about for i in missing)}")
            hint(f"placet collateral fetch --into {folder} --wanted")
    return FINDINGS if any(row.problem for row in rows) else DONE


# --- showing ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A file of a folder, and what is wrong with it."""

    item: Item
    genuine: Genuine | None
    problem: str
    left: int | None

    @classmethod
    def read(cls, folder: Path, item: Item, anchors: Sequence[TrustAnchor], now: int) -> Row:
        """Read a file and verify it."""
        try:
            text = read_file(folder / item.name)
            if text is None:
                return cls(item=item, genuine=None, problem="not there", left=None)
            found = check_genuine(item, text, anchors, now=None)
        except PlacetError as e:
            return cls(item=item, genuine=None, problem=f"not genuine: {e.detail}", left=None)
        left = found.ends - now
        problem = "has ended" if left <= 0 else "ends soon" if left <= SOON else ""
        if found.begins > now:
            problem = "begins later"
        return cls(item=item, genuine=found, problem=problem, left=left)

    def cells(self) -> tuple[Cell, ...]:
        """Return the cells of a table."""
        found = self.genuine
        if found is None or self.left is None:
            return self.item.name, self.item.about, "-", "-", "-", bad(self.problem)
        state = bad if self.left <= 0 else odd if self.problem else good
        return (
            self.item.name,
            self.item.about,
            found.evaluation,
            moment(found.ends),
            _span(self.left),
            state(self.problem or "genuine"),
        )

    def document(self) -> dict[str, object]:
        """Return it as JSON."""
        found = self.genuine
        return {
            "file": self.item.name,
            "what": self.item.about,
            "root": found.anchor if found else None,
            "evaluation": found.evaluation if found else None,
            "ends": found.ends if found else None,
            "left": self.left,
            "problem": self.problem or None,
        }


def _span(seconds: int) -> str:
    if seconds <= 0:
        return "-"
    days, hours = seconds // 86400, seconds % 86400 // 3600
    return f"{days} days" if days > 1 else f"{days * 24 + hours} hours"


def _code(outcomes: Sequence[Outcome]) -> int:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not errors:
        return DONE
    return exit_code(errors[0]) if len(errors) == len(outcomes) else PARTLY


# --- what is named ------------------------------------------------------------------------


def anchors_of(root: Path | None, tcb_signer: str) -> tuple[TrustAnchor, ...]:
    """Return the pinned roots, or the one that is named in their place.

    Raises:
        MalformedError: It is no root, or its TCB signer needs a name.
    """
    if root is not None and read_bytes(root).lstrip()[:1] == b"{":
        return trust_from_config((read_json(root, TrustRoot, "trust root"),))
    found = trusted(root)
    if not tcb_signer:
        return found
    if root is None:
        raise MalformedError("--tcb-signer is for a root that --root names")
    return tuple(replace(anchor, tcb_signer=tcb_signer) for anchor in found)


def _family(tee: str, fmspc: str, ca: str) -> Item:
    item = item_of(IntelItem(tee, fmspc.lower(), ca).name)
    if item is None:
        raise MalformedError(f"{fmspc!r} is no FMSPC", "Write twelve hex digits.")
    return item


def _items_of(path: Path) -> tuple[Item, ...]:
    found = read_evidence(path)
    if found.evidence.family == "nitro":
        raise MalformedError(f"{path} is a Nitro document, which brings all that it needs")
    if found.evidence.family == "snp" and KEYS.get(split(found.raw)[0].signer >> 2 & 7) == "vlek":
        raise MalformedError(
            f"{path} is signed by a VLEK, which only its provider gives out",
            "Staple its certificate to the report.",
        )
    names, _ = needs(found.evidence)
    return tuple(item for name in names if (item := item_of(name)) is not None)
