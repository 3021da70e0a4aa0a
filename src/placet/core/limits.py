"""Every limit, by name. Length is checked before anything is parsed (spec/01, section 5)."""

from __future__ import annotations

KIB = 1024

MAX_STATEMENT = 64 * KIB
"""Bytes of one signed statement as sent."""

MAX_CHARTER = 1024
"""Statements of one key."""

MAX_CHAIN = 64
"""Statements in one request."""

MAX_BODY = 1024 * KIB
"""Bytes of one request or answer body."""

MAX_EVIDENCE = 64 * KIB
"""Bytes of one quote."""

MAX_COLLATERAL = 128 * KIB
"""Bytes of the collateral stapled to it, as JSON."""

MAX_GRACE = 30 * 24 * 3600
"""Seconds for which an owner may accept collateral after its end (R8.5)."""

MAX_EVENTS = 64
"""Events of one RTMR's log."""

MAX_FRAME = 256 * KIB
"""Bytes of one message of the attestation exchange."""

MAX_SIGNERS = 64
"""Leaves of one principal; also signatures on one statement."""

MAX_DEPTH = 4
"""Nesting of thresholds in a principal."""

MAX_VAULTS = 32
"""Vaults of one set."""

MAX_PROFILES = 64
"""Profiles approved at one time."""

MAX_SECRET = 64 * KIB
"""Bytes that may be shared."""

MAX_ATTEMPTS = 256
"""Attempts to create one key that a vault remembers shares of."""

MAX_PENDING = 64
"""Staged profiles that one stager may keep at one vault."""

MAX_LIFETIME = 30 * 24 * 3600
"""Seconds between a statement's issue and its end."""

MAX_EVIDENCE_AGE = 60
"""Seconds for which evidence on a connection supports a release (R1.8)."""

MIN_LIFETIME = 60
"""Seconds that an owner may cap a statement's lifetime at, at least."""

MAX_DELAY = 90 * 24 * 3600
"""Seconds of a policy's delays and cool-downs."""

COOLDOWN = 24 * 3600
"""Seconds for which a newly added owner signer counts for nothing, unless the policy says more."""

PAGE_DELAY = 24 * 3600
"""Seconds that a statement waits which one owner signer signed alone, on a page of others."""

MAX_WAITING = 16
"""Statements of one key that wait out a delay at one vault."""

MAX_HEADS = 8
"""Branches that one merge ends."""

MAX_JWKS = 8
"""Keys of one identity provider that a signer pins."""

MAX_ID_TOKEN = 8 * KIB
"""Characters of an ID token."""

MAX_RECORD = 8192 * KIB
"""Bytes of one stored record."""

MAX_LABEL = 200
"""Characters of a human name."""

MAX_NOTE = 16 * KIB
"""Characters of a signed note (checkpoint)."""

MAX_NOTE_SIGNATURES = 64
"""Signatures under one note: the vault's, and its witnesses'."""

MAX_LOG_ENTRY = 4 * KIB
"""Bytes of one log entry."""

MAX_LINES = 16
"""Processes of one vault, one after the other, whose logs another one witnesses."""

MAX_PACKAGE = 32 * 1024 * KIB
"""Bytes of all that one process of a vault hands to the next about one key."""

HAND_OVER_PART = 512 * KIB
"""Bytes of a key's record in one answer to a new process of the vault."""

MAX_LOG_PAGE = 256
"""Log entries in one answer."""

MAX_LOG_HASHES = 4096
"""Entry hashes in one answer."""

MAX_DENIALS = 10
"""Denials of one key that are logged one by one in a minute; the rest is counted (R7.5)."""

MAX_CLIENT_DATA = 2 * KIB
"""Bytes of a passkey assertion's clientDataJSON."""

MAX_CREDENTIAL_ID = 1023
"""Bytes of a credential id (WebAuthn Level 3, section 4)."""

MAX_PROBES = 16
"""Connections to the probe listener at one time."""

MAX_PROBE_HEAD = 4 * KIB
"""Bytes of a probe's request."""

MIN_FREE = 64 * 1024 * KIB
"""Bytes free on the disk of a vault's store, below which it says that it is not ready."""
LEASE = 600
"""Seconds for which a witness's answer lets a vault go on releasing (I6, R2.8)."""

BEAT_EVERY = 60
"""Seconds after which a vault asks its witnesses again, at the latest; statements come sooner."""

MAX_SKEW = 300
"""Seconds by which a vault's clock may differ from those of k witnesses (R2.6)."""

MAX_CIRCLES = 1024
"""Different vault sets of the keys of one vault."""

MAX_PEERS = 256
"""Other vaults and witnesses that one vault asks."""

MAX_NEWS = 64
"""Keys that one answer to a beat names as changed."""

MAX_PROOF = 128
"""Hashes of one consistency proof."""

MAX_SEEN = 10000
"""Vaults that one outside witness remembers."""

MAX_CONNECTIONS = 512
"""Connections open at one vault, attested or not."""

MAX_MEETINGS = 256
"""Of them, those that have not attested yet."""

MAX_VISITORS = 256
"""Of them, those that sent no evidence."""

MAX_NETWORKS = 4096
"""Addresses of which a vault remembers how much they asked lately."""

MAX_QUEUE = 32
"""Connections from one address that wait for a turn to be attested."""

MAX_QUOTES = 2
"""Quotes of its own that a vault has made at one time."""

MAX_CHECKS = 2
"""Peers' evidence that a vault verifies at one time."""

MAX_FAILED = 1024
"""Refused evidence that a vault remembers, to refuse it again without looking."""

MAX_HELLO = KIB
"""Bytes of the first message of the exchange, and of a visitor's second one."""

HANDSHAKE_RATE, HANDSHAKE_BURST = 200, 400
"""Connections of one address: a second, and saved up."""

MAX_READING = 64 * 1024 * KIB
"""Bytes of requests that a vault reads at one time, of all connections together."""

WORK_RATE, WORK_BURST = 1024, 8192
"""Work that visitors of one address may ask for, a second and saved up: 1 a request, and 1 a KiB
that it brings."""

ALL_WORK_RATE, ALL_WORK_BURST = 2048, 16384
"""The same for the visitors of all addresses together."""

REQUEST_RATE, REQUEST_BURST = 1000, 2000
"""Requests of one TLS key: a second, and saved up."""

MAX_TURN = 128
"""Requests that a vault decides, and makes durable, together."""
