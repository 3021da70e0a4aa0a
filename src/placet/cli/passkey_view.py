"""What an owner is made of, and what of it can sign here, as ``placet owner`` shows it."""

from __future__ import annotations

from collections.abc import Sequence

from placet.cli.output import Fact, answer, print_json, short, show_facts, warn
from placet.cli.passkey_enrol import New, warnings
from placet.cli.passkey_kept import Pen, SecurityKey, kind, pen_id
from placet.cli.settings import Owner
from placet.core.signer import OidcSigner, PasskeySigner, Signer, signer_id
from placet.policy.principal import leaves


def show_owner(owner: Owner, new: Sequence[New] = (), *, as_json: bool) -> None:
    """Show an owner: fingerprint, signers, which of them are here, and what to beware of."""
    mine = pen_id(owner.key)
    here = {pen_id(p): p for p in owner.pens}
    named = {signer_id(s) for s in leaves(owner.principal)}
    notes = warnings(owner.principal, new)
    if as_json:
        print_json(
            {
                "fingerprint": owner.fingerprint,
                "key_file": str(owner.path) if owner.path.exists() else None,
                "signer": mine,
                "principal": owner.principal,
                "here": [
                    {
                        "signer": id_,
                        "label": pen.signer.label,
                        "kind": kind(pen.signer, pen),
                        "device": pen.device if isinstance(pen, SecurityKey) else None,
                        "in_principal": id_ in named,
                    }
                    for id_, pen in here.items()
                ],
                "warnings": notes,
            }
        )
        return
    answer(owner.fingerprint)
    facts: list[Fact] = []
    if owner.path.exists():
        facts.append(("key file", str(owner.path)))
    facts.append(("must sign", f"{owner.principal.threshold} of {len(owner.principal.of)}"))
    facts += [
        ("signer", _described(s, here.get(signer_id(s)), mine)) for s in leaves(owner.principal)
    ]
    facts += [
        ("not in it", _described(pen.signer, pen, mine))
        for id_, pen in here.items()
        if id_ not in named
    ]
    show_facts(facts)
    for note in notes:
        warn(note)


def _described(signer: Signer, pen: Pen | None, mine: str) -> str:
    if isinstance(signer, OidcSigner):
        return f"{signer.label}: identity at {signer.issuer}, a factor beside the others"
    where = ""
    if isinstance(signer, PasskeySigner):
        where = f", for {signer.rp_id} on {' '.join(signer.origins)}"
    here = ""
    if pen is not None:
        here = ", signs here" if pen_id(pen) == mine else ", can sign here"
    return f"{signer.label}: {kind(signer, pen)}, {short(signer_id(signer))}{where}{here}"
