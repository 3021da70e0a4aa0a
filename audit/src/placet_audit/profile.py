"""What code is, and which profiles and vault sets are fit (spec/03, section 1)."""

from __future__ import annotations

from placet_audit.canonical import Json, digest_of
from placet_audit.shapes import refuse

NARROWING = frozenset(
    (
        *("mrsigner", "isv_prod_id", "isv_svn"),
        *("id_key_digest", "author_key_digest", "guest_svn"),
        *("pcr3", "pcr4", "pcr8"),
    )
)
"""Fields that only narrow: code is the same with and without them."""
MEASURES_CODE = frozenset(
    (
        *("mrenclave", "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"),
        *("measurement", "pcr0", "pcr1", "pcr2"),
    )
)
FOLLOWS = frozenset(("mr_config_id", "host_data"))
"""Fields that follow from image and config."""


def code_id(profile: Json) -> str:
    """Return the digest of what is said about code, and of nothing else."""
    measured = {k: v for k, v in profile["measurement"].items() if k not in NARROWING}
    about = {name: profile[name] for name in ("app", "image", "config")}
    return digest_of("placet-code/1", {**about, "measurement": measured})


def check_profile(profile: Json) -> None:
    """Refuse a profile that contradicts itself, or that nothing could match."""
    rules, measured = profile["tcb"], profile["measurement"]
    if not rules["statuses"] or rules["hardware_ids"] == [] or not profile["app"].isprintable():
        raise refuse("a profile accepts no status or machine, or its app is no text")
    if measured["tee"] == "tdx" and profile["config"] != "sha384:" + measured["mr_config_id"]:
        raise refuse("a profile's config is not its MRCONFIGID")
    if measured["tee"] == "snp":
        both = {"config": profile["config"], "image": profile["image"]}
        if digest_of("placet-host-data/1", both) != "sha256:" + measured["host_data"]:
            raise refuse("a profile's HOST_DATA is of another config or image")


def check_vault_set(vault_set: Json) -> None:
    """Refuse a vault set in which two quorums need not meet (I12)."""
    names, k = [v["id"] for v in vault_set["vaults"]], vault_set["k"]
    if not k <= len(names) < 2 * k or len(set(names)) != len(names) or not vault_set["profiles"]:
        raise refuse(f"a vault set of {len(names)} with k = {k} keeps no key")
    for profile in vault_set["profiles"]:
        check_profile(profile)


def changes(old: Json, new: Json) -> set[str]:
    """Return what differs between two profiles, in the words of a clause (spec/09, 5.3)."""
    found = {n for n in ("app", "anchor", "tcb", "image", "config") if old[n] != new[n]}
    was, now = old["measurement"], new["measurement"]
    if was["tee"] != now["tee"]:
        return {*found, "tee"}
    for name, value in was.items():
        if now[name] != value and name not in FOLLOWS:
            found.add("measurement" if name in MEASURES_CODE else name)
    return found
