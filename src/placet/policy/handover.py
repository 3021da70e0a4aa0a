"""May a new process of a vault have a key's record, and from whom may it take one? Pure.

A release of a vault is let in like a version of an app: by the key's owner, who adds its
profile to the vault set. The steps are those of spec/12, section 2.
"""

from __future__ import annotations

from placet.core.attestation import AttestedIdentity
from placet.core.profile import Profile, VaultSet, code_id
from placet.errors import (
    BindingError,
    EvidenceStaleError,
    NotApprovedError,
    PolicyDeniedError,
    RoleDeniedError,
)
from placet.policy.key_policy import KeyPolicy
from placet.policy.match import match_any


def decide_hand_over(
    policy: KeyPolicy,
    identity: AttestedIdentity,
    *,
    vault: str,
    release: str,
    age: float,
    max_age: float,
) -> Profile:
    """Return the profile under which a key's record may leave for a new process, or refuse.

    The caller **must** have the decision durable in its log, and the key out of service,
    before the record moves (I11).

    Args:
        policy: The key's policy in force at this vault at this moment.
        identity: Evidence that was verified and bound to this very connection.
        vault: Id of the vault that decides.
        release: Code id of the release that decides.
        age: Seconds since the evidence was made, by the vault's monotonic clock.
        max_age: Seconds for which evidence supports it.

    Raises:
        RoleDeniedError: The peer does not take over for a vault.
        BindingError: The evidence was made for another purpose or another vault.
        EvidenceStaleError: It is too old: attest again.
        NotApprovedError: The owner did not name its release.
        TcbError: The owner did, and its rules refuse the platform.
        PolicyDeniedError: The vault keeps no share of the key, or the release is not newer.
    """
    # 2.1 Who is to be this vault asks, by evidence made for just that.
    claims = identity.claims
    if identity.role != "resharer":
        raise RoleDeniedError(f"a {identity.role} takes nothing over", "Start: placet vault serve.")
    if claims.purpose != "reshare" or claims.keys is not None or claims.instance != vault:
        raise BindingError(f"evidence was not made to take over for vault {vault}")
    if age > max_age:
        raise EvidenceStaleError(
            f"evidence is {age:.0f} s old, at most {max_age:.0f} s are accepted",
            "Open a new connection and attest again.",
        )
    # 2.2 to 2.4
    return _named(policy, identity, vault=vault, older=release)


def check_predecessor(
    policy: KeyPolicy, identity: AttestedIdentity, *, vault: str, release: str
) -> None:
    """Check that a record may be taken from who hands it over, by the charter in it.

    That the charter is the newest is *not* checked: its vault says so, as in all it does.

    Args:
        policy: Of the charter that came, whose signatures were checked.
        identity: Of who hands it over.
        vault: The vault that both are.
        release: Code id of the release that takes over.

    Raises:
        NotApprovedError, TcbError: The owner let no such process keep a share.
        PolicyDeniedError: The vault is none of the key's, or the own release is not a newer one.
    """
    # 2.5 The owner had let it keep the share, and names the own release after that.
    _member(policy, vault)
    older = match_any(policy.vault_set.profiles, identity)
    _check_order(policy.vault_set, code_id(older), release)


def _named(policy: KeyPolicy, identity: AttestedIdentity, *, vault: str, older: str) -> Profile:
    # 2.2 This vault keeps a share of the key.
    _member(policy, vault)
    # 2.3 The owner named exactly this release, in the vault set in force.
    try:
        profile = match_any(policy.vault_set.profiles, identity)
    except NotApprovedError as e:
        raise NotApprovedError(
            f"vault release {e.members['code']} is not one that the owner named for this key",
            f"The owner can: placet key update {policy.key} --add-vault-release PROFILE",
            key=policy.key,
            version=policy.version,
            **e.members,
        ) from e
    # 2.4 A record goes forward only: to a release that was named after the one it is with.
    _check_order(policy.vault_set, older, code_id(profile))
    return profile


def _member(policy: KeyPolicy, vault: str) -> None:
    if vault not in policy.vault_set.ids:
        raise PolicyDeniedError(f"vault {vault} is none of this key's", reason="no-member")


def _check_order(vault_set: VaultSet, older: str, newer: str) -> None:
    named = [code_id(p) for p in vault_set.profiles]
    at = named.index(older) if older in named else -1
    if newer not in named or named.index(newer) <= at:
        raise PolicyDeniedError(
            f"release {newer} was not named after {older}: a record goes to newer releases only",
            "Name the newer release: placet key update KEY --add-vault-release PROFILE",
            reason="not-newer",
            code=newer,
        )
