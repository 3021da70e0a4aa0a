# ruff: noqa: INP001, T201 - a script, which prints
"""Write the vectors of `core/` and `releases/`, as another implementation would.

Nothing of placet is imported: objects are plain dictionaries, canonical JSON is the
package `rfc8785`, words are those of the package `mnemonic`, and the rest is hashlib and
`cryptography` with fixed keys. So the tests compare two readings of the specification.

What is there is never written over: a file that would come out differently is named, and
the run fails. A new release gets a new folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mnemonic import Mnemonic

HERE = Path(__file__).resolve().parent
RELEASE = "0.1.0"
NOW = 1_800_000_000
DAY = 86_400
PAYLOAD_TYPE = "application/vnd.placet.statement.v1+json"
WORDS = Mnemonic("english").wordlist
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
X962 = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
DETERMINISTIC = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

Json = dict[str, Any]


# --- the encodings, from their standards --------------------------------------------------


def jcs(value: object) -> bytes:
    """Return canonical JSON (RFC 8785)."""
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def digest(label: str, data: bytes) -> str:
    """Return a labelled digest."""
    return "sha256:" + hashlib.sha256(label.encode() + b"\0" + data).hexdigest()


def pae(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    return b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload]
    )


def words(statement_digest: str) -> list[str]:
    """Return the six words of a statement."""
    raw = bytes.fromhex(statement_digest.split(":")[1])
    bits = "".join(f"{b:08b}" for b in hashlib.sha256(b"placet-words/1\0" + raw).digest())
    return [WORDS[int(bits[i : i + 11], 2)] for i in range(0, 66, 11)]


# --- people, vaults, code -----------------------------------------------------------------


def ed25519(name: str) -> Ed25519PrivateKey:
    """Return a fixed Ed25519 key."""
    seed = hashlib.sha256(f"placet vectors/{name}".encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def p256(name: str) -> ec.EllipticCurvePrivateKey:
    """Return a fixed P-256 key."""
    seed = hashlib.sha512(f"placet vectors/{name}".encode()).digest()
    return ec.derive_private_key(int.from_bytes(seed, "big") % (ORDER - 1) + 1, ec.SECP256R1())


def key_signer(label: str, private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Json:
    """Return a signer of kind key."""
    if isinstance(private, Ed25519PrivateKey):
        algorithm, raw = "ed25519", private.public_key().public_bytes_raw()
    else:
        algorithm, raw = "p256", private.public_key().public_bytes(*X962)
    return {"kind": "key", "label": label, "algorithm": algorithm, "public_key": b64(raw)}


def cose(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Return a COSE_Key in CTAP2 canonical form."""
    if isinstance(private, Ed25519PrivateKey):
        raw = private.public_key().public_bytes_raw()
        return bytes.fromhex("a4010103272006215820") + raw
    raw = private.public_key().public_bytes(*X962)
    return bytes.fromhex("a5010203262001215820") + raw[1:33] + bytes.fromhex("225820") + raw[33:]


def passkey_signer(label: str, private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Json:
    """Return a signer of kind passkey."""
    return {
        "kind": "passkey",
        "label": label,
        "rp_id": "approve.example",
        "origins": ["https://approve.example"],
        "credential_id": b64(hashlib.sha256(label.encode()).digest()),
        "public_key": b64(cose(private)),
        "screen": "own",
    }


CARD, FILE, PHONE, TOKEN = p256("card"), ed25519("file"), p256("phone"), ed25519("token")
PLATFORM = ed25519("platform")
SIGNERS: dict[str, Json] = {
    "file": key_signer("file", FILE),
    "card": key_signer("card", CARD),
    "phone": passkey_signer("phone", PHONE),
    "token": passkey_signer("token", TOKEN),
    "platform": key_signer("platform", PLATFORM),
}
PRIVATE: dict[str, Ed25519PrivateKey | ec.EllipticCurvePrivateKey] = {
    "file": FILE,
    "card": CARD,
    "phone": PHONE,
    "token": TOKEN,
    "platform": PLATFORM,
}
OWNER: Json = {
    "kind": "threshold",
    "label": "owner",
    "threshold": 1,
    "of": [
        SIGNERS["phone"],
        SIGNERS["token"],
        {
            "kind": "threshold",
            "label": "at the desk",
            "threshold": 2,
            "of": [SIGNERS["file"], SIGNERS["card"]],
        },
    ],
}
VAULTS = [ed25519(f"vault {i}") for i in range(1, 6)]
ANCHOR = "software:" + hashlib.sha256(b"root of the vectors").hexdigest()
RULES: Json = {
    "statuses": ["UpToDate", "SWHardeningNeeded"],
    "allowed_advisories": None,
    "denied_advisories": ["INTEL-SA-00615"],
    "denied_families": ["00906ea10000"],
    "hardware_ids": None,
    "min_evaluation": 17,
}


def signer_id(signer: Json) -> str:
    """Return a signer's fingerprint."""
    return digest("placet-signer/1", jcs({"public_key": signer["public_key"]}))


def vault_id(key: Ed25519PrivateKey) -> str:
    """Return a vault's fingerprint."""
    return digest("placet-vault/1", key.public_key().public_bytes_raw())


def workload_config() -> Json:
    """Return a workload's measured config."""
    return {
        "schema": 1,
        "role": "workload",
        "app": "notes",
        "argv": ["placet.agent.main:main", "--key", "{key}", "--volume", "{volume}"],
        "environment": {"LANG": "C.UTF-8", "NOTES_TITLE": "Notizen für alle"},
        "mounts": [],
        "trust_roots": [
            {"anchor": ANCHOR, "root": b64(b"root of the vectors"), "tcb_signer": "TCB of vectors"}
        ],
        "opens": {
            "owner": digest("placet-owner/1", jcs(OWNER)),
            "label": "notes/data",
            "label_prefix": None,
        },
    }


def vault_config() -> Json:
    """Return a vault's measured config."""
    return {
        "schema": 1,
        "role": "vault",
        "app": "placet-vault",
        "argv": ["placet.vault.main:main", "--listen", "{listen}", "--data", "{data}"],
        "environment": {},
        "settings": {"evidence_age": 60, "max_keys": 1000},
        "trust_roots": workload_config()["trust_roots"],
    }


def config_digest(config: Json) -> str:
    """Return the digest that MRCONFIGID carries."""
    return "sha384:" + hashlib.sha384(jcs(config)).hexdigest()


def tdx_profile(version: int) -> Json:
    """Return the profile of a version of the app, in a trust domain."""
    image = "sha256:" + hashlib.sha256(b"notes %d" % version).hexdigest()
    config = config_digest(workload_config())
    rtmr3 = hashlib.sha384(bytes(48) + hashlib.sha384(image.encode()).digest()).hexdigest()
    return {
        "app": "notes",
        "image": image,
        "config": config,
        "security_version": version,
        "anchor": ANCHOR,
        "measurement": {
            "tee": "tdx",
            "mrtd": hashlib.sha384(b"runtime").hexdigest(),
            "rtmr0": "00" * 48,
            "rtmr1": "00" * 48,
            "rtmr2": "00" * 48,
            "rtmr3": rtmr3,
            "mr_config_id": config.split(":")[1],
            "td_attributes": "0000001000000000",
            "xfam": "e702060000000000",
        },
        "tcb": RULES,
    }


def sgx_profile() -> Json:
    """Return the profile of a vault, in an enclave."""
    return {
        "app": "placet-vault",
        "image": "sha256:" + hashlib.sha256(b"vault").hexdigest(),
        "config": config_digest(vault_config()),
        "security_version": 1,
        "anchor": ANCHOR,
        "measurement": {
            "tee": "sgx",
            "mrenclave": hashlib.sha256(b"enclave").hexdigest(),
            "mrsigner": hashlib.sha256(b"signer").hexdigest(),
            "isv_prod_id": 1,
            "isv_svn": 2,
        },
        "tcb": RULES,
    }


def code_id(profile: Json) -> str:
    """Return the digest of what a profile says about code."""
    measurement = profile["measurement"]
    if measurement["tee"] == "sgx":
        measurement = {"tee": "sgx", "mrenclave": measurement["mrenclave"]}
    fields = {name: profile[name] for name in ("app", "image", "config")}
    return digest("placet-code/1", jcs(fields | {"measurement": measurement}))


# --- statements ---------------------------------------------------------------------------


def statement(kind: str, body: Json, at: int, **more: object) -> Json:
    """Return a statement whose nonce depends on its kind and time."""
    nonce = hashlib.sha256(f"nonce {kind} {at}".encode()).digest()
    times = {"issued_at": at, "expires_at": at + DAY, "nonce": b64(nonce)}
    return {"schema": 1, "type": kind, "key": None, "body": body} | times | more


def statement_digest(value: Json) -> str:
    """Return D."""
    return digest("placet-statement/1", jcs(value))


def sign(value: Json, name: str) -> Json:
    """Return one signature over a statement."""
    private, signer = PRIVATE[name], SIGNERS[name]
    if signer["kind"] == "key":
        raw = raw_sign(private, pae(PAYLOAD_TYPE, jcs(value)))
        return {"kind": "key", "signer": signer_id(signer), "signature": b64(raw)}
    challenge = b64(bytes.fromhex(statement_digest(value).split(":")[1]))
    # As browsers serialise it: in this order, without spaces.
    client = (
        f'{{"type":"webauthn.get","challenge":"{challenge}",'
        f'"origin":"{signer["origins"][0]}","crossOrigin":false}}'
    ).encode()
    flags, count = b"\x1d", (7).to_bytes(4, "big")
    authenticator = hashlib.sha256(signer["rp_id"].encode()).digest() + flags + count
    raw = raw_sign(private, authenticator + hashlib.sha256(client).digest())
    return {
        "kind": "passkey",
        "signer": signer_id(signer),
        "authenticator_data": b64(authenticator),
        "client_data": b64(client),
        "signature": b64(raw),
    }


def raw_sign(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign bytes, the same in every run."""
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(message)
    return private.sign(message, DETERMINISTIC)


def envelope(value: Json, *names: str) -> Json:
    """Return a signed statement as it travels."""
    return {
        "payload_type": PAYLOAD_TYPE,
        "payload": b64(jcs(value)),
        "signatures": [sign(value, name) for name in names],
    }


def promote(key: str, prev: Json, version: int, at: int, body: Json) -> Json:
    """Return a promote that stands on ``prev``."""
    more = {"key": key, "prev": statement_digest(prev), "base_version": version}
    return statement("promote", body, at, **more)


def promote_body(profile: Json, **changes: object) -> Json:
    """Return the body of a promote."""
    return {
        "profile": profile,
        "provenance": "sha256:" + hashlib.sha256(b"provenance").hexdigest(),
        "review": None,
        "earlier": "keep",
        "retire_at": None,
        "unretire": False,
        "security_version_floor": 1,
    } | changes


def story() -> list[tuple[Json, tuple[str, ...]]]:
    """Return a charter that does everything once, and who signs each step."""
    vaults = [
        {
            "id": vault_id(key),
            "endpoint": f"vault{i}.example:8443",
            "domain": {"operator": f"operator {i}", "region": "eu", "vendor": "software"},
        }
        for i, key in enumerate(VAULTS, 1)
    ]
    birth = statement(
        "birth",
        {
            "label": "notes/data",
            "policy": {
                "owner": OWNER,
                "stagers": [SIGNERS["platform"]],
                "profiles": [tdx_profile(1)],
                "security_version_floor": 1,
            },
            "vault_set": {"k": 3, "vaults": vaults, "profiles": [sgx_profile()]},
        },
        NOW,
        prev=None,
        base_version=0,
    )
    key = statement_digest(birth)
    overlap = {"earlier": "retire-at", "retire_at": NOW + 9 * DAY}
    second = promote(key, birth, 1, NOW + DAY, promote_body(tdx_profile(2), **overlap))
    retire = statement(
        "retire",
        {"code": code_id(tdx_profile(1)), "reason": "eine Lücke"},
        NOW + 2 * DAY,
        key=key,
        prev=statement_digest(second),
        base_version=2,
    )
    third_body = promote_body(tdx_profile(3), earlier="retire", security_version_floor=1)
    third = promote(key, retire, 3, NOW + 3 * DAY, third_body)
    back_body = promote_body(tdx_profile(2), unretire=True, security_version_floor=2)
    back = promote(key, third, 4, NOW + 4 * DAY, back_body)
    return [
        (birth, ("phone",)),
        (second, ("file", "card")),
        (retire, ("token",)),
        (third, ("phone", "file")),
        (back, ("card", "token", "file", "phone")),
    ]


def loose() -> list[tuple[Json, tuple[str, ...]]]:
    """Return a stage and its end."""
    key = statement_digest(story()[0][0])
    body = {
        "profile": tdx_profile(4),
        "version": "4.0",
        "source": "0123456789abcdef0123456789abcdef01234567",
        "provenance": None,
        "review": None,
    }
    stage = statement("stage", body, NOW + 5 * DAY)
    end = {"stage": statement_digest(stage), "reason": "superseded"}
    revoke = statement("revoke-pending", end, NOW + 6 * DAY, key=key)
    return [(stage, ("platform",)), (revoke, ("platform",))]


def receipt(vault: int, value: Json, version: int) -> Json:
    """Return a vault's receipt for a statement."""
    key = VAULTS[vault]
    payload = jcs(
        {
            "schema": 1,
            "vault": vault_id(key),
            "key": statement_digest(story()[0][0]),
            "statement": statement_digest(value),
            "version": version,
            "index": 10 * version + vault,
            "time": value["issued_at"] + 60,
        }
    )
    return {
        "payload": b64(payload),
        "vault_key": b64(key.public_key().public_bytes_raw()),
        "signature": b64(key.sign(pae("application/vnd.placet.taken.v1+json", payload))),
    }


# --- the files ----------------------------------------------------------------------------


def encoding() -> Json:
    """Return values and their canonical text, and texts that are no statement."""
    values: dict[str, object] = {
        "escapes": '\b\t\n\f\r"\\\u0000\u001f',
        "no other escape": "/\u007f\u0080\u2028<>&'",
        "not normalised": "A\u030a",
        "beyond the BMP": "\U0001f602",
        "integers": [0, -1, 2**53 - 1, 1 - 2**53],
        "order of keys": {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\u0080": 6, "\u00f6": 7},
        "nothing": [None, True, False, "", [], {}],
        "nested": {"b": {"d": [{"f": 1, "e": 2}], "c": None}, "a": 0},
    }
    good = jcs(story()[2][0]).decode()
    changes = {
        "a space": ('"schema":1', '"schema": 1'),
        "a duplicate field": ('"schema":1', '"schema":1,"schema":1'),
        "an unknown field": ('"schema":1', '"reason":"","schema":1'),
        "another order": ('"schema":1,"type":"retire"', '"type":"retire","schema":1'),
        "a float": ('"base_version":2', '"base_version":2.0'),
        "an exponent": ('"base_version":2', '"base_version":2e0'),
        "a leading zero": ('"base_version":2', '"base_version":02'),
        "an integer beyond 2**53 - 1": ('"base_version":2', '"base_version":9007199254740992'),
        "a needless escape": ("ü", "\\u00fc"),
        "a lone surrogate": ("ü", "\\ud800"),
        "another schema": ('"schema":1', '"schema":2'),
        "an unknown type": ('"type":"retire"', '"type":"override"'),
        "capital hex": ('"key":"sha256:', '"key":"SHA256:'),
        "an end before its start": (f'"expires_at":{NOW + 3 * DAY}', f'"expires_at":{NOW}'),
    }
    refused = [{"name": name, "text": changed(good, *c)} for name, c in changes.items()]
    refused += [
        {"name": "a byte order mark", "text": "\ufeff" + good},
        {"name": "a line after it", "text": good + "\n"},
        {"name": "the last byte missing", "text": good[:-1]},
        {"name": "nothing", "text": ""},
    ]
    return {
        "spec": "spec/01",
        "cases": [
            {"name": name, "value": value, "canonical": jcs(value).decode()}
            for name, value in values.items()
        ],
        "statement": good,
        "refused": [one | {"type": "malformed"} for one in refused],
    }


def changed(text: str, old: str, new: str) -> str:
    """Replace what must be there exactly once."""
    if text.count(old) != 1:
        raise ValueError(f"{old!r} is not there exactly once")
    return text.replace(old, new)


def statements() -> Json:
    """Return one statement of each type, with all that is derived from its bytes."""
    chosen = [value for value, _ in [*story()[:3], *loose()]]
    return {
        "spec": "spec/03, section 1",
        "payload_type": PAYLOAD_TYPE,
        "cases": [
            {
                "type": value["type"],
                "statement": value,
                "canonical": jcs(value).decode(),
                "digest": statement_digest(value),
                "pae": b64(pae(PAYLOAD_TYPE, jcs(value))),
                "words": words(statement_digest(value)),
            }
            for value in chosen
        ],
    }


def ids() -> Json:
    """Return objects and the digests that stand for them."""
    profiles = [tdx_profile(1), tdx_profile(2), sgx_profile()]
    keys = sorted(digest("placet-statement/1", b"%d" % i) for i in range(3))
    return {
        "spec": "spec/03, section 1; spec/05, section 2",
        "signers": [{"signer": s, "id": signer_id(s)} for s in SIGNERS.values()],
        "owners": [{"owner": OWNER, "fingerprint": digest("placet-owner/1", jcs(OWNER))}],
        "profiles": [
            {
                "profile": p,
                "code_id": code_id(p),
                "profile_id": digest("placet-profile/1", jcs(p)),
            }
            for p in profiles
        ],
        "configs": [
            {"config": c, "digest": config_digest(c)} for c in (workload_config(), vault_config())
        ],
        "vaults": [
            {"public_key": b64(v.public_key().public_bytes_raw()), "id": vault_id(v)}
            for v in VAULTS
        ],
        "keys": [
            {"keys": some, "digest": digest("placet-keys/1", jcs(some))}
            for some in (keys, keys[:1], [])
        ],
    }


def attestation() -> Json:
    """Return contexts and the report data that quotes over them carry."""
    profile, names = tdx_profile(1), [statement_digest(story()[0][0])]
    verifier, prover = hashlib.sha256(b"v").digest(), hashlib.sha256(b"p").digest()
    workload: Json = {
        "schema": 1,
        "protocol": "placet-attest/1",
        "role": "workload",
        "direction": "client",
        "spki": digest("spki", b"own"),
        "peer_spki": digest("spki", b"peer"),
        "verifier_nonce": b64(verifier),
        "prover_nonce": b64(prover),
        "exporter": b64(hashlib.sha256(b"exporter").digest()),
        "instance": "instance-1",
        "app": profile["app"],
        "image": profile["image"],
        "config": profile["config"],
        "purpose": "release",
        "keys": digest("placet-keys/1", jcs(names)),
        "boot": "boot-1",
    }
    vault = sgx_profile()
    answer = {
        "role": "vault",
        "direction": "server",
        "spki": workload["peer_spki"],
        "peer_spki": workload["spki"],
        "app": vault["app"],
        "image": vault["image"],
        "config": vault["config"],
        "purpose": None,
        "keys": None,
    }
    cases = [workload, workload | answer]
    label = b"placet-attest/1\0"
    return {
        "spec": "spec/05, section 2",
        "contexts": [
            {
                "context": c,
                "canonical": jcs(c).decode(),
                "report_data": hashlib.sha512(label + jcs(c)).hexdigest(),
            }
            for c in cases
        ],
        "exporter_contexts": [
            {
                "verifier_nonce": b64(verifier),
                "prover_nonce": b64(prover),
                "role": c["role"],
                "direction": c["direction"],
                "context": hashlib.sha256(
                    verifier + prover + f"\0{c['role']}\0{c['direction']}".encode()
                ).hexdigest(),
            }
            for c in cases
        ],
        "app_reports": [
            {"data": b64(d), "report_data": hashlib.sha512(b"app-report/1\0" + d).hexdigest()}
            for d in (b"", b"an application's own")
        ],
    }


def released_statements() -> Json:
    """Return a signed statement of each type; each must open and verify for ever."""
    return {
        "release": RELEASE,
        "signers": list(SIGNERS.values()),
        "cases": [
            {
                "type": value["type"],
                "signed": envelope(value, *names),
                "digest": statement_digest(value),
                "signed_by": sorted(signer_id(SIGNERS[name]) for name in names),
            }
            for value, names in [*story(), *loose()]
        ],
    }


def released_charter() -> Json:
    """Return a whole charter with receipts, and the policy that is its fold."""
    steps = story()
    code = {v: code_id(tdx_profile(v)) for v in (1, 2, 3)}
    digests = [statement_digest(value) for value, _ in steps]
    return {
        "release": RELEASE,
        "charter": [
            {
                "signed": envelope(value, *names),
                "receipts": [receipt(i, value, version) for i in range(3)],
            }
            for version, (value, names) in enumerate(steps, 1)
        ],
        "policy": {
            "key": digests[0],
            "label": "notes/data",
            "version": len(steps),
            "chain": digests,
            "birth_owner": digest("placet-owner/1", jcs(OWNER)),
            "approvals": [
                {"code": code[3], "statement": digests[3], "until": None},
                {"code": code[2], "statement": digests[4], "until": None},
            ],
            "floor": 2,
            "tombstones": [code[1]],
        },
    }


def main() -> int:
    """Write what is missing; return 1 when a frozen file would come out differently."""
    files = {
        "core/encoding.json": encoding(),
        "core/statements.json": statements(),
        "core/ids.json": ids(),
        "core/attestation.json": attestation(),
        f"releases/{RELEASE}/statements.json": released_statements(),
        f"releases/{RELEASE}/charter.json": released_charter(),
    }
    status = 0
    for name, content in files.items():
        path = HERE / name
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"{name}: written")
        elif path.read_text() == text:
            print(f"{name}: unchanged")
        else:
            print(f"{name}: FROZEN, and would come out differently", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
