# ruff: noqa: INP001, T201 - a script, which prints
"""Write the vectors of `oidc/`, as an identity provider, or who plays one, would make them.

Nothing of placet is imported: tokens are put together from base64, JSON texts and
`cryptography`, with keys that are derived from their names (the RSA primes too).

What is there is never written over; see `make.py`, from which the encodings come.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from make import DAY, DETERMINISTIC, HERE, NOW, ORDER, X962, Json, b64, digest, ed25519, jcs, p256

ISSUER = "https://accounts.example"
AUDIENCE = "placet-approvals"
SUB = "248289761001"
NONCE = hashlib.sha256(b"placet vectors/a statement").digest()
ENDS = NOW + DAY
MINUTE = 60
LONGEST = 8192
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_PRIMES = [n for n in range(3, 2000, 2) if all(n % d for d in range(3, int(n**0.5) + 1, 2))]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey
Parts = tuple[str, str, str]


# --- keys -----------------------------------------------------------------------------------


def prime(name: str, bits: int, exponent: int) -> int:
    """Return a prime that depends on a name only (Miller and Rabin, 40 rounds)."""
    seed = hashlib.shake_256(f"placet vectors/{name}".encode()).digest(bits // 8)
    start = int.from_bytes(seed, "big") | 3 << (bits - 2) | 1
    for n in count(start, 2):
        if any(n % small == 0 for small in SMALL_PRIMES) or n % exponent == 1:
            continue
        if all(_passes(n, base) for base in SMALL_PRIMES[:40]):
            return n
    raise ValueError(name)


def _passes(n: int, base: int) -> bool:
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    x = pow(base, odd, n)
    return x in (1, n - 1) or any((x := x * x % n) == n - 1 for _ in range(twos - 1))


@cache
def rsa_key(name: str, bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """Return a fixed RSA key."""
    p, q = (prime(f"{name} {part}", bits // 2, exponent) for part in "pq")
    d = pow(exponent, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(exponent, p * q)
    numbers = rsa.RSAPrivateNumbers(
        p=p, q=q, d=d, dmp1=d % (p - 1), dmq1=d % (q - 1), iqmp=pow(q, -1, p), public_numbers=public
    )
    return numbers.private_key()


def number(n: int, length: int | None = None) -> str:
    """Return an integer as a JWK has it: big-endian, without or with leading zeros."""
    return b64(n.to_bytes(length or (n.bit_length() + 7) // 8, "big"))


def jwk(kid: str, private: PrivateKey) -> Json:
    """Return the public key of a provider, as a signer pins it."""
    if isinstance(private, rsa.RSAPrivateKey):
        at = private.public_key().public_numbers()
        return {"kty": "RSA", "kid": kid, "alg": "RS256", "n": number(at.n), "e": number(at.e)}
    if isinstance(private, ec.EllipticCurvePrivateKey):
        raw = private.public_key().public_bytes(*X962)
        x, y = b64(raw[1:33]), b64(raw[33:])
        return {"kty": "EC", "kid": kid, "alg": "ES256", "crv": "P-256", "x": x, "y": y}
    raw = private.public_key().public_bytes_raw()
    return {"kty": "OKP", "kid": kid, "alg": "EdDSA", "crv": "Ed25519", "x": b64(raw)}


RS, ES, ED = rsa_key("rs-2027"), p256("es-2027"), ed25519("ed-2027")
KEYS: dict[str, PrivateKey] = {
    "rs-2027": RS,
    "es-2027": ES,
    "ed-2027": ED,
    "es-2026": p256("es-2026"),
}
STRANGER = p256("stranger")
ALG = {"rs-2027": "RS256", "es-2027": "ES256", "ed-2027": "EdDSA", "es-2026": "ES256"}


def signer(*kids: str, **changes: object) -> Json:
    """Return a signer that pins these keys."""
    return {
        "kind": "oidc",
        "label": "work account",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "sub": SUB,
        "jwks": [jwk(kid, KEYS[kid]) for kid in kids],
    } | changes


SIGNERS = {
    "now": signer("rs-2027", "es-2027", "ed-2027"),
    "before the rotation": signer("es-2026", "es-2027"),
}


# --- tokens ---------------------------------------------------------------------------------


def sign(private: PrivateKey, message: bytes) -> bytes:
    """Return a JWS signature."""
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(message, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(private, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(private.sign(message, DETERMINISTIC))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return private.sign(message)


def text(value: object) -> bytes:
    """Return a JSON text as providers write it, without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def changed(members: Json, changes: Json) -> Json:
    """Return members with others put in; ``...`` takes one out."""
    return {name: value for name, value in (members | changes).items() if value is not ...}


def header(kid: str = "es-2027", /, **changes: object) -> bytes:
    """Return a header's text."""
    return text(changed({"alg": ALG[kid], "typ": "JWT", "kid": kid}, changes))


def claims(**changes: object) -> bytes:
    """Return a payload's text."""
    honest = {
        "iss": ISSUER,
        "sub": SUB,
        "aud": AUDIENCE,
        "nonce": b64(NONCE),
        "auth_time": NOW + 30,
        "iat": NOW + 31,
        "exp": NOW + 3631,
    }
    return text(changed(honest, changes))


def parts(head: bytes, payload: bytes, private: PrivateKey = ES) -> Parts:
    """Return a token in its three parts, signed over these very texts."""
    first, second = b64(head), b64(payload)
    return first, second, b64(sign(private, f"{first}.{second}".encode()))


def token(head: bytes | None = None, payload: bytes | None = None, kid: str = "es-2027") -> str:
    """Return a token of an honest provider, or of one who holds its key and says otherwise."""
    head = header(kid) if head is None else head
    return ".".join(parts(head, claims() if payload is None else payload, KEYS[kid]))


def saying(**changes: object) -> str:
    """Return a token with other claims."""
    return token(payload=claims(**changes))


def headed(**changes: object) -> str:
    """Return a token with another header, signed over it."""
    return token(header(**changes))


def mac(head: bytes, secret: bytes) -> str:
    """Return a token that is "signed" with HMAC and a secret that everybody knows."""
    message = f"{b64(head)}.{b64(claims())}"
    return f"{message}.{b64(hmac.digest(secret, message.encode(), 'sha256'))}"


def with_signature(raw: bytes, kid: str = "es-2027") -> str:
    """Return the honest token with another signature."""
    first, second, _ = token(kid=kid).split(".")
    return f"{first}.{second}.{b64(raw)}"


def message_of(kid: str = "es-2027") -> bytes:
    """Return what the honest token's signature is over."""
    return token(kid=kid).rpartition(".")[0].encode()


def padded(length: int) -> str:
    """Return a token of this length, by an Ed25519 key, with a claim that means nothing."""
    for pad in count(length * 3 // 4 - 700):
        found = token(payload=claims(pad="x" * pad), kid="ed-2027")
        if len(found) == length:
            return found
        if len(found) > length:
            break
    raise ValueError(f"no token is {length} characters")


def accepted() -> Iterator[tuple[str, str]]:
    """Yield honest tokens, up to the ends of what is taken."""
    for kid, alg in ALG.items():
        if kid != "es-2026":
            yield f"{alg}", token(kid=kid)
    yield "without typ", headed(typ=...)
    yield "header in another order", token(b'{"kid":"es-2027","alg":"ES256"}')
    yield "header with spaces", token(b'{ "alg" : "ES256" ,\n "kid" : "es-2027" }')
    yield "member name escaped", token(payload=claims().replace(b'"iss"', b'"\\u0069ss"'))
    yield "aud as an array of one", saying(aud=[AUDIENCE])
    yield "azp of the same client", saying(azp=AUDIENCE)
    yield (
        "claims that nobody asked for",
        saying(
            email="owner@example.com",
            amr=["pwd"],
            acr="0",
            at_hash="Zm9v",
            sid="1",
            name="Ünï",
            roles={"realm": {"roles": ["user"]}},
        ),
    )
    yield "sign-in a minute before the statement", saying(auth_time=NOW - MINUTE)
    yield "sign-in at the statement's end", saying(auth_time=ENDS, iat=ENDS, exp=ENDS + 1)
    yield "token a minute before the statement", saying(auth_time=NOW, iat=NOW - MINUTE)
    yield "token at the statement's end", saying(iat=ENDS, exp=ENDS + 3600)
    yield "sign-in a minute after the token", saying(auth_time=NOW + 31 + MINUTE)
    yield "token of one second", saying(exp=NOW + 32)
    yield "token of a day", saying(exp=NOW + 31 + DAY)
    yield "nbf a minute after iat", saying(nbf=NOW + 31 + MINUTE)
    yield "nbf long ago", saying(nbf=0)
    yield "as long as allowed", padded(LONGEST)


Refusals = Iterator[tuple[str, str, str, str | None]]


def outside() -> Refusals:
    """Yield what is refused before a header is read: length, parts, base64url."""
    good = token()
    first, second, third = good.split(".")
    yield "one character too long", padded(LONGEST + 1), "too-large", None
    for name, found in {
        "nothing": "",
        "one part": first,
        "two parts": f"{first}.{second}",
        "four parts": f"{good}.{third}",
        "five parts, as an encrypted one": f"{first}.{second}.{third}.{third}.{third}",
        "a dot at the end": f"{good}.",
        "a dot before": f".{good}",
    }.items():
        yield name, found, "malformed", "parts"
    odd_bits = third[:-1] + chr(ord(third[-1]) + 1)
    for name, found in {
        "padded header": f"{first}==.{second}.{third}",
        "padded payload": f"{first}.{second}=.{third}",
        "padded signature": f"{first}.{second}.{third}==",
        "stray bits in the signature": f"{first}.{second}.{odd_bits}",
        "the other alphabet": f"{first}.{second}.{third[:-2]}+/",
        "a space before": f" {good}",
        "a line after": f"{good}\n",
        "a line inside": f"{first[:8]}\n{first[8:]}.{second}.{third}",
        "no ASCII": f"{first}.{second}.{third[:-1]}é",
    }.items():
        yield name, found, "malformed", "base64url"


def headers() -> Refusals:
    """Yield what is refused by its header."""
    good = header()
    for name, raw in {
        "empty": b"",
        "an array": b"[" + good + b"]",
        "a string": b'"ES256"',
        "null": b"null",
        "cut short": good[:-1],
        "something after it": good + b"{}",
        "alg twice": good.replace(b"{", b'{"alg":"none",'),
        "kid twice": good.replace(b"{", b'{"kid":"es-2026",'),
        "kid twice, once escaped": good.replace(b"{", b'{"\\u006bid":"es-2026",'),
        "typ twice, the same": good.replace(b"{", b'{"typ":"JWT",'),
        "NaN": good.replace(b"}", b',"a":NaN}'),
        "a float": good.replace(b"}", b',"a":1.0}'),
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": good.decode().encode("utf-16"),
        "no UTF-8": good.replace(b"es-2027", b"es-2027\xff"),
        "nested without end": b"[" * 3000,
    }.items():
        yield f"header: {name}", token(raw), "malformed", "json"
    pinned = SIGNERS["now"]["jwks"]
    yield "jwk: the pinned key", headed(jwk=pinned[1]), "approval-missing", "header"
    own = ".".join(parts(header(jwk=jwk("es-2027", STRANGER)), claims(), STRANGER))
    yield "jwk: a key of one's own", own, "approval-missing", "header"
    members: Json = {
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/cert.pem",
        "x5c": ["MIIB"],
        "x5t": "Zm9v",
        "x5t#S256": "Zm9v",
        "crit": ["exp"],
        "b64": False,
        "cty": "JWT",
        "enc": "A128GCM",
        "zip": "DEF",
        "p2c": 1_000_000,
        "nonce": b64(NONCE),
        "iss": ISSUER,
        "ALG": "ES256",
        "": "",
        "é": 1,
    }
    for name, value in members.items():
        yield f"header: {name or 'a name of nothing'}", headed(**{name: value}), *_header
    lone = token(header().replace(b"{", b'{"\\ud800":1,'))
    yield "header: half a surrogate", lone, *_header
    for typ in ("jwt", "at+jwt", "JWS", "logout+jwt", "JWT ", "", 1, None, ["JWT"]):
        yield f"typ: {json.dumps(typ)}", headed(typ=typ), "approval-missing", "typ"
    yield from algorithms()
    yield from kids()


_header = ("approval-missing", "header")


def algorithms() -> Refusals:
    """Yield what says another algorithm than that of the pinned key."""
    refused = ("approval-missing", "alg")
    for alg in ("none", "None", "NONE", "nOnE"):
        unsigned = f"{b64(header(alg=alg))}.{b64(claims())}."
        yield f"alg: {alg}, unsigned", unsigned, *refused
        nameless = header(alg=alg, kid=...)
        yield f"alg: {alg}, without kid", f"{b64(nameless)}.{b64(claims())}.", *refused
    yield "alg: none, with a signature", headed(alg="none"), *refused
    public = RS.public_key()
    pem, der = (
        public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    )
    hs256 = header("rs-2027", alg="HS256")
    for name, secret in {
        "the RSA key as PEM": pem,
        "the RSA key as PEM without its last line feed": pem.rstrip(),
        "the RSA key as DER": der,
        "the RSA key as JWK": jcs(jwk("rs-2027", RS)),
        "the client id": AUDIENCE.encode(),
        "nothing": b"",
    }.items():
        yield f"alg: HS256 with {name}", mac(hs256, secret), *refused
    for alg in ("RS384", "RS512", "PS256", "ES384", "ES256K", "Ed25519", "rs256", "ES256 ", ""):
        yield f"alg: {alg!r}", headed(alg=alg), *refused
    for alg in (None, 1, True, ["ES256"], {"ES256": 1}, ...):
        yield f"alg: {'left out' if alg is ... else json.dumps(alg)}", headed(alg=alg), *refused
    for kid, alg in (("rs-2027", "ES256"), ("es-2027", "RS256"), ("ed-2027", "ES256")):
        yield f"alg: {alg} for {kid}", token(header(kid, alg=alg), kid=kid), *refused


def kids() -> Refusals:
    """Yield what names a key that is not pinned, or names it otherwise."""
    named: dict[str, object] = {
        "unknown": "es-2028",
        "rotated out": "es-2026",
        "a path": "../../../../../../dev/null",
        "SQL": "es-2027' UNION SELECT 'key' -- ",
        "a URL": "https://evil.example/jwks.json#es-2027",
        "a command": "|/usr/bin/id",
        "in capitals": "ES-2027",
        "with a space": "es-2027 ",
        "with a zero byte": "es-2027\0",
        "a beginning": "es",
        "empty": "",
        "a number": 1,
        "null": None,
        "an array": ["es-2027"],
        "left out": ...,
        "long": "k" * 4000,
    }
    for name, kid in named.items():
        head, private = header(kid=kid), KEYS["es-2026" if kid == "es-2026" else "es-2027"]
        yield f"kid: {name}", ".".join(parts(head, claims(), private)), "approval-missing", "kid"


def signatures() -> Refusals:
    """Yield honest texts whose signature does not hold."""
    es, ed, rs = message_of(), message_of("ed-2027"), message_of("rs-2027")
    es_raw, ed_raw, rs_raw = sign(ES, es), sign(ED, ed), sign(RS, rs)
    higher = int.from_bytes(rs_raw, "big") + RS.public_key().public_numbers().n
    more = int.from_bytes(ed_raw[32:], "little") + ED25519_ORDER
    r, s = es_raw[:32], es_raw[32:]
    stranger = ".".join(parts(header(), claims(), STRANGER))
    honest, other = token().split("."), saying(nonce=b64(bytes(32))).split(".")
    found = {
        "of a stranger, under the pinned kid": stranger,
        "of another token": f"{honest[0]}.{honest[1]}.{other[2]}",
        "over another payload": f"{honest[0]}.{other[1]}.{honest[2]}",
        "over another header": f"{b64(header(typ=...))}.{honest[1]}.{honest[2]}",
        "left out": with_signature(b""),
        "ES256: zeros": with_signature(bytes(64)),
        "ES256: r of zero": with_signature(bytes(32) + s),
        "ES256: s of zero": with_signature(r + bytes(32)),
        "ES256: r and s of the group's order": with_signature(ORDER.to_bytes(32, "big") * 2),
        "ES256: s and r": with_signature(s + r),
        "ES256: a byte less": with_signature(es_raw[:-1]),
        "ES256: a byte more": with_signature(es_raw + b"\0"),
        "ES256: a zero before s": with_signature(r + b"\0" + s),
        "ES256: DER": with_signature(ES.sign(es, DETERMINISTIC)),
        "ES256: SHA-512": with_signature(_ecdsa_sha512(es)),
        "EdDSA: a byte less": with_signature(ed_raw[:-1], "ed-2027"),
        "EdDSA: S plus the group's order": with_signature(
            ed_raw[:32] + more.to_bytes(32, "little"), "ed-2027"
        ),
        "EdDSA: over the hash": with_signature(ED.sign(hashlib.sha512(ed).digest()), "ed-2027"),
        "RS256: PSS": with_signature(_fixed_pss(), "rs-2027"),
        "RS256: SHA-1": with_signature(
            RS.sign(rs, padding.PKCS1v15(), hashes.SHA1()),  # noqa: S303 - an attack
            "rs-2027",
        ),
        "RS256: SHA-512": with_signature(
            RS.sign(rs, padding.PKCS1v15(), hashes.SHA512()), "rs-2027"
        ),
        "RS256: one": with_signature((1).to_bytes(256, "big"), "rs-2027"),
        "RS256: a byte less": with_signature(rs_raw[1:], "rs-2027"),
        "RS256: a zero before": with_signature(b"\0" + rs_raw, "rs-2027"),
        "RS256: plus the modulus": with_signature(
            higher.to_bytes((higher.bit_length() + 7) // 8, "big"), "rs-2027"
        ),
    }
    for name, one in found.items():
        yield f"signature: {name}", one, "approval-missing", "signature"


def _fixed_pss() -> bytes:
    # The library draws a salt; with one of zeros it is the same in every run (RFC 8017, 9.1.1).
    key = RS.private_numbers()
    hashed = hashlib.sha256(message_of("rs-2027")).digest()
    h = hashlib.sha256(bytes(8) + hashed + bytes(32)).digest()
    length = 256 - 32 - 1
    mask = b"".join(
        hashlib.sha256(h + i.to_bytes(4, "big")).digest() for i in range(length // 32 + 1)
    )
    block = (b"\1" + bytes(32)).rjust(length, b"\0")
    masked = bytearray(x ^ y for x, y in zip(block, mask, strict=False))
    masked[0] &= 0x7F
    encoded = int.from_bytes(bytes(masked) + h + b"\xbc", "big")
    return pow(encoded, key.d, key.public_numbers.n).to_bytes(256, "big")


def _ecdsa_sha512(message: bytes) -> bytes:
    algorithm = ec.ECDSA(hashes.SHA512(), deterministic_signing=True)
    r, s = decode_dss_signature(ES.sign(message, algorithm))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def payloads() -> Refusals:
    """Yield payloads that the provider signed and that do not parse."""
    good = claims()
    exp = b'"exp":%d' % (NOW + 3631)
    for name, raw in {
        "empty": b"",
        "text": b"approved",
        "an array": b"[" + good + b"]",
        "a string": b'"yes"',
        "null": b"null",
        "another token": token().encode(),
        "cut short": good[:-1],
        "something after it": good + b"{}",
        "iss twice": good.replace(b"{", b'{"iss":"https://evil.example",', 1),
        "iss twice, the same": good.replace(b"{", b'{"iss":"%b",' % ISSUER.encode(), 1),
        "iss twice, once escaped": good.replace(b"{", b'{"\\u0069ss":"https://evil.example",', 1),
        "nonce twice": good.replace(b"{", b'{"nonce":"x",', 1),
        "aud twice": good.replace(b"{", b'{"aud":"other",', 1),
        "an unknown claim twice": good.replace(b"}", b',"a":1,"a":1}'),
        "a claim twice inside": good.replace(b"}", b',"a":{"b":1,"b":1}}'),
        "exp as a float": good.replace(exp, b'"exp":%d.0' % (NOW + 3631)),
        "exp with an exponent": good.replace(exp, b'"exp":18e8'),
        "exp NaN": good.replace(exp, b'"exp":NaN'),
        "exp Infinity": good.replace(exp, b'"exp":Infinity'),
        "exp with a zero before": good.replace(exp, b'"exp":0%d' % (NOW + 3631)),
        "an unknown float": good.replace(b"}", b',"a":0.5}'),
        "a number of 5000 digits": good.replace(exp, b'"exp":' + b"1" * 5000),
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": good.decode().encode("utf-16"),
        "no UTF-8": good.replace(b'"sub":"', b'"sub":"\xff'),
        "single quotes": good.replace(b'"', b"'"),
        "a comment": b"/**/" + good,
        "nested without end": b"[" * 5000,
    }.items():
        yield f"payload: {name}", token(payload=raw), "malformed", "json"


def claim_changes() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield wrong values of each claim, by what is wrong with them."""
    yield (
        "iss",
        {
            "with a slash at the end": ISSUER + "/",
            "without TLS": ISSUER.replace("https", "http"),
            "in capitals": ISSUER.upper(),
            "with a port": ISSUER + ":443",
            "of another provider": "https://evil.example",
            "that ours begins": ISSUER + ".evil.example",
            "without scheme": "accounts.example",
            "in an array": [ISSUER],
            "null": None,
            "left out": ...,
        },
    )
    yield (
        "aud",
        {
            "of another client": "notes-web",
            "ours and another": [AUDIENCE, "notes-web"],
            "another and ours": ["notes-web", AUDIENCE],
            "ours twice": [AUDIENCE, AUDIENCE],
            "ours, nested": [[AUDIENCE]],
            "empty array": [],
            "an object": {AUDIENCE: 1},
            "in capitals": AUDIENCE.upper(),
            "that ours begins": AUDIENCE + "-2",
            "null": None,
            "left out": ...,
        },
    )
    yield (
        "azp",
        {
            "of another client": "notes-web",
            "in an array": [AUDIENCE],
            "empty": "",
            "null": None,
        },
    )
    yield (
        "sub",
        {
            "of somebody else": "248289761002",
            "as a number": int(SUB),
            "in an array": [SUB],
            "with a space": SUB + " ",
            "empty": "",
            "null": None,
            "left out": ...,
        },
    )
    yield (
        "nonce",
        {
            "of another statement": b64(hashlib.sha256(b"another").digest()),
            "in hex": NONCE.hex(),
            "as the digest is written": "sha256:" + NONCE.hex(),
            "padded": b64(NONCE) + "=",
            "a byte less": b64(NONCE[:-1]),
            "a byte more": b64(NONCE + b"\0"),
            "with stray bits": b64(NONCE)[:-1] + chr(ord(b64(NONCE)[-1]) + 1),
            "hashed again": b64(hashlib.sha256(NONCE).digest()),
            "in an array": [b64(NONCE)],
            "empty": "",
            "null": None,
            "left out": ...,
        },
    )


def no_times(name: str, value: int) -> dict[str, object]:
    """Return what is no time in seconds, for any of the three claims that are one."""
    return {
        f"{name} in milliseconds": value * 1000,
        f"{name} in text": str(value),
        f"{name} true": True,
        f"{name} zero": 0,
        f"{name} negative": -value,
        f"{name} null": None,
        f"{name} in an array": [value],
        f"{name} left out": ...,
    }


def times() -> Refusals:
    """Yield what was not a fresh sign-in for this statement, or lives too long."""
    honest = {"auth_time": NOW + 30, "iat": NOW + 31, "exp": NOW + 3631}
    for claim, value in honest.items():
        for name, wrong in no_times(claim, value).items():
            yield name, saying(**{claim: wrong}), "approval-missing", claim
    late = ENDS + MINUTE + 1
    for name, claim, changes in (
        ("sign-in 61 seconds before the statement", "auth_time", {"auth_time": NOW - MINUTE - 1}),
        ("sign-in a day before: a session", "auth_time", {"auth_time": NOW - DAY}),
        (
            "sign-in after the statement's end",
            "auth_time",
            {"auth_time": ENDS + 1, "iat": ENDS, "exp": ENDS + 3600},
        ),
        ("sign-in 61 seconds after the token", "auth_time", {"auth_time": NOW + 92}),
        ("token 61 seconds before the statement", "iat", {"auth_time": NOW - 1, "iat": NOW - 61}),
        ("token after the statement's end", "iat", {"iat": late, "exp": late + 60}),
        ("exp at iat", "exp", {"exp": NOW + 31}),
        ("exp before iat", "exp", {"exp": NOW + 30}),
        ("exp a day and a second after iat", "exp", {"exp": NOW + 32 + DAY}),
        ("nbf 61 seconds after iat", "nbf", {"nbf": NOW + 92}),
        ("nbf in milliseconds", "nbf", {"nbf": NOW * 1000}),
        ("nbf in text", "nbf", {"nbf": str(NOW)}),
        ("nbf true", "nbf", {"nbf": True}),
        ("nbf null", "nbf", {"nbf": None}),
    ):
        yield name, saying(**changes), "approval-missing", claim


def refused() -> Refusals:
    """Yield every token that is refused, with the problem's type and its reason."""
    yield from outside()
    yield from headers()
    yield from signatures()
    yield from payloads()
    for claim, wrong in claim_changes():
        for name, value in wrong.items():
            yield f"{claim}: {name}", saying(**{claim: value}), "approval-missing", claim
    yield from times()


# --- signers --------------------------------------------------------------------------------


def fit_signers() -> Json:
    """Return signers that may be named in a policy."""
    return {
        "three keys": SIGNERS["now"],
        "an issuer with a path": signer("es-2027", issuer="https://id.example/realms/notes"),
        "an issuer with a slash at the end": signer("es-2027", issuer="https://id.example/"),
        "an issuer with a port": signer("es-2027", issuer="https://id.example:8443"),
        "this machine": signer("es-2027", issuer="http://localhost:4455"),
        "this machine, by its address": signer("es-2027", issuer="http://127.0.0.1:4455"),
        "RSA of 3072 bits": signer(jwks=[jwk("k", rsa_key("3072", 3072))]),
        "RSA of 4096 bits": signer(jwks=[jwk("k", rsa_key("4096", 4096))]),
    }


def unfit_signers() -> Json:
    """Return signers that may not."""
    es, rs = jwk("es-2027", ES), jwk("rs-2027", RS)
    ed = jwk("ed-2027", ED)
    raw = RS.public_key().public_numbers()
    return {
        f"issuer {issuer!r}": signer("es-2027", issuer=issuer)
        for issuer in (
            "",
            "accounts.example",
            "http://accounts.example",
            "http://localhost.example",
            "http://127.0.0.2",
            "HTTPS://accounts.example",
            "https://Accounts.example",
            "https://user@accounts.example",
            "https://accounts.example?tenant=1",
            "https://accounts.example#a",
            "https://accounts.example:0",
            "https://accounts.example//a",
            "https://accounts.example/a b",
            "https://accounts.example\n",
            "https://",
            "ftp://accounts.example",
        )
    } | {
        "no audience": signer("es-2027", audience=""),
        "an audience with a line feed": signer("es-2027", audience="a\n"),
        "no sub": signer("es-2027", sub=""),
        "a sub with a zero byte": signer("es-2027", sub="a\0"),
        "two keys of one kid": signer(jwks=[es, rs | {"kid": "es-2027"}]),
        "an empty kid": signer(jwks=[es | {"kid": ""}]),
        "RSA of 1024 bits": signer(jwks=[jwk("k", rsa_key("1024", 1024))]),
        "RSA of 2047 bits": signer(jwks=[rs | {"n": number(raw.n >> 1 | 1)}]),
        "RSA of 4097 bits": signer(jwks=[rs | {"n": number(1 << 4096 | 1)}]),
        "RSA, even": signer(jwks=[rs | {"n": number(raw.n - 1)}]),
        "RSA with a zero before": signer(jwks=[rs | {"n": number(raw.n, 257)}]),
        "RSA, padded": signer(jwks=[rs | {"n": rs["n"] + "A"}]),
        "RSA, empty": signer(jwks=[rs | {"n": ""}]),
        "RSA, exponent 3": signer(jwks=[rs | {"e": "Aw"}]),
        "RSA, exponent 1": signer(jwks=[rs | {"e": "AQ"}]),
        "RSA, exponent with a zero before": signer(jwks=[rs | {"e": "AAEAAQ"}]),
        "P-256 off the curve": signer(jwks=[es | {"y": es["x"]}]),
        "P-256 of zeros": signer(jwks=[es | {"x": b64(bytes(32)), "y": b64(bytes(32))}]),
        "P-256, a byte less": signer(jwks=[es | {"x": b64(bytes(31))}]),
        "P-256, a byte more": signer(jwks=[es | {"x": b64(bytes(33))}]),
        "P-256, stray bits": signer(jwks=[es | {"x": es["x"][:-1] + chr(ord(es["x"][-1]) + 1)}]),
        "Ed25519 of small order": signer(jwks=[ed | {"x": b64(bytes(32))}]),
        "Ed25519, the neutral element": signer(jwks=[ed | {"x": b64(b"\1" + bytes(31))}]),
        "Ed25519 off the curve": signer(jwks=[ed | {"x": b64(b"\2" + bytes(31))}]),
        "Ed25519, not reduced": signer(jwks=[ed | {"x": b64(b"\xf0" + b"\xff" * 30 + b"\x7f")}]),
        "Ed25519, a byte less": signer(jwks=[ed | {"x": b64(bytes(31))}]),
    }


def thumbprint(key: Json) -> str:
    """Return the thumbprint of a key (RFC 7638)."""
    members = {name: key[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in key}
    return "sha256:" + hashlib.sha256(jcs(members)).hexdigest()


def signer_id(one: Json) -> str:
    """Return the id of an OIDC signer."""
    return digest("placet-signer/1", jcs({n: one[n] for n in ("issuer", "audience", "sub")}))


def id_tokens() -> Json:
    """Return tokens and what becomes of them, for one statement."""
    prints = {kid: thumbprint(jwk(kid, key)) for kid, key in KEYS.items()}
    good = list(accepted())
    rotated = ".".join(parts(header("es-2026"), claims(), KEYS["es-2026"]))
    return {
        "spec": "docs/oidc.md",
        "statement": {"nonce": b64(NONCE), "issued_at": NOW, "expires_at": ENDS},
        "signers": [
            {"name": name, "signer": one, "id": signer_id(one)} for name, one in SIGNERS.items()
        ],
        "accepted": [
            {"name": name, "signer": "now", "token": one, **_result(one, prints)}
            for name, one in good
        ]
        + [
            {
                "name": "by a key that was rotated out since",
                "signer": "before the rotation",
                "token": rotated,
                **_result(rotated, prints),
            }
        ],
        "refused": [
            {"name": name, "signer": "now", "token": one, "type": kind, "reason": reason}
            for name, one, kind, reason in refused()
        ],
    }


def _result(one: str, prints: dict[str, str]) -> Json:
    head, payload = (json.loads(_unb64(part)) for part in one.split(".")[:2])
    return {"until": payload["exp"], "jwk": prints[head["kid"]]}


def _unb64(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def signers() -> Json:
    """Return OIDC signers and whether a policy may name them."""
    found: list[Any] = [
        {"name": n, "signer": s, "id": signer_id(s), "type": None} for n, s in fit_signers().items()
    ]
    found += [
        {"name": n, "signer": s, "id": signer_id(s), "type": "malformed"}
        for n, s in unfit_signers().items()
    ]
    return {"spec": "docs/oidc.md", "cases": found}


def main() -> int:
    """Write what is missing; return 1 when a frozen file would come out differently."""
    files = {"oidc/id-tokens.json": id_tokens(), "oidc/signers.json": signers()}
    status = 0
    for name, content in files.items():
        path = HERE / name
        made = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made)
            print(f"{name}: written")
        elif path.read_text() == made:
            print(f"{name}: unchanged")
        else:
            print(f"{name}: FROZEN, and would come out differently", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
