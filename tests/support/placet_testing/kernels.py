"""A stand-in of a TEE's kernel: system calls, and the devices behind them.

Each device behaves as its driver does, as far as a producer can see: what is written when,
which error comes from which call and which one is lost, how often a report is made, and how
few bytes a read may give. Read for this: Linux 6.7 to 6.17 (``drivers/virt/coco/guest``,
``tdx-guest``, ``sev-guest``, ``fs/configfs/file.c``, ``drivers/misc/nsm.c``) and Gramine's
``fs/dev/attestation.c`` with ``libos_fs_pseudo.c``. No line of them is here.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import hmac
import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import cbor2

from placet.attest.produce.device import Machine

TSM = Path("/sys/kernel/config/tsm/report")
MEASUREMENTS = Path("/sys/class/misc/tdx_guest/measurements")
SEV = Path("/dev/sev-guest")
GRAMINE = Path("/dev/attestation")
NSM = Path("/dev/nsm")
WRAP = 2**64


def fault(number):
    """Raise what a system call raises."""
    raise OSError(number, os.strerror(number))


class Kernel:
    """The system calls of `placet.attest.produce.device.Files`, over mounted devices.

    Paths under no mount go to the real file system. ``chunk`` is the most that one read
    gives; ``calls`` is all that was asked of the devices.
    """

    def __init__(self, mounts, chunk=1000):
        self.mounts = {Path(path): device for path, device in mounts.items()}
        self.chunk = chunk
        self.calls = []
        self.open_files = {}
        self._fds = count(1000)

    @property
    def machine(self):
        """Return this as what producers take."""
        return Machine(files=self, ioctl=self.ioctl)

    def _find(self, path):
        for mount, device in self.mounts.items():
            if path == mount or mount in path.parents:
                return device, str(path.relative_to(mount))
        return None, ""

    def stat(self, path):
        """Find a mount, or a real file."""
        device, name = self._find(path)
        return os.stat(path) if device is None else device.stat(name)  # noqa: PTH116

    def mkdir(self, path):
        """Make a folder on a device."""
        device, name = self._find(path)
        self.calls.append(("mkdir", name))
        device.mkdir(name)

    def rmdir(self, path):
        """Remove a folder of a device."""
        device, name = self._find(path)
        self.calls.append(("rmdir", name))
        device.rmdir(name)

    def open(self, path, flags):
        """Open a device's file, or a real one."""
        device, name = self._find(path)
        if device is None:
            return os.open(path, flags)
        self.calls.append(("open", str(path)))
        fd = next(self._fds)
        self.open_files[fd] = device.open(name, flags & os.O_ACCMODE)
        return fd

    def read(self, fd, size):
        """Read at most ``chunk`` bytes."""
        if fd not in self.open_files:
            return os.read(fd, size)
        return self.open_files[fd].read(min(size, self.chunk))

    def write(self, fd, data):
        """Write."""
        return self.open_files[fd].write(data)

    def close(self, fd):
        """Close; a device's file may act only now, and its errors are lost."""
        if fd not in self.open_files:
            os.close(fd)
            return
        self.open_files.pop(fd).close()

    def ioctl(self, fd, request, argument):
        """Hand a request with its struct to the device."""
        self.open_files[fd].ioctl(request, argument)


class Flat:
    """What a device is that has no folders to make."""

    def stat(self, _name):
        """It is there."""

    def mkdir(self, _name):
        """Refuse."""
        fault(errno.EPERM)


class Opened:
    """An open file: by default it can do nothing."""

    def read(self, _size):
        """Refuse."""
        fault(errno.EINVAL)

    def write(self, _data):
        """Refuse."""
        fault(errno.EINVAL)

    def ioctl(self, _request, _argument):
        """Refuse."""
        fault(errno.ENOTTY)

    def close(self):
        """Do nothing."""


class Value(Opened):
    """A file that is read from a value that was made at open, or at the first read."""

    def __init__(self, load):
        self.load, self.value, self.at = load, None, 0

    def read(self, size):
        """Return the next bytes."""
        if self.value is None:
            self.value = self.load()
        part = self.value[self.at : self.at + size]
        self.at += len(part)
        return part


class Sink(Opened):
    """A file whose every write is a whole value."""

    def __init__(self, store):
        self.store = store

    def write(self, data):
        """Store."""
        self.store(data)
        return len(data)


# --- configfs-tsm ------------------------------------------------------------------------


class BinarySink(Opened):
    """A binary configfs attribute: gathers what is written, stores at close, loses errors."""

    def __init__(self, store, limit):
        self.store, self.limit, self.data = store, limit, b""

    def write(self, data):
        """Gather."""
        if len(self.data) + len(data) > self.limit:
            fault(errno.EFBIG)
        self.data += data
        return len(data)

    def close(self):
        """Store; nobody hears of an error."""
        if self.data:
            with suppress(OSError):
                self.store(self.data)


@dataclass
class Entry:
    """One report entry with its two counters."""

    written: int = 0
    read: int = 0
    inblob: bytes = b""
    privlevel: int = 0
    blobs: dict[str, bytes] | None = None

    def count(self):
        """Count a write, unless the counter would meet the other one again."""
        if self.written == (self.read - 1) % WRAP:
            fault(errno.EBUSY)
        self.written = (self.written + 1) % WRAP


class Tsm:
    """``/sys/kernel/config/tsm/report`` over one guest.

    ``before`` maps "read outblob" and the like to what somebody else does just then, with
    the entry, once per item. ``faults`` maps the same to an errno that comes instead.
    """

    def __init__(self, guest, *, before=(), faults=()):
        self.guest = guest
        self.entries = {}
        self.before = {name: list(acts) for name, acts in dict(before).items()}
        self.faults = dict(faults)

    def stat(self, name):
        """The folder is there once configfs is mounted."""
        if name != "." and name not in self.entries:
            fault(errno.ENOENT)

    def mkdir(self, name):
        """Make an entry."""
        self._meet("mkdir", None)
        if self.guest is None:
            fault(errno.ENXIO)
        if name in self.entries:
            fault(errno.EEXIST)
        self.entries[name] = Entry()

    def rmdir(self, name):
        """Drop an entry."""
        self._meet("rmdir", None)
        if self.entries.pop(name, None) is None:
            fault(errno.ENOENT)

    def open(self, name, mode):
        """Open an attribute that this provider shows."""
        folder, _, attribute = name.partition("/")
        entry = self.entries.get(folder)
        shown = {"generation", "provider", "inblob", "outblob"} | self.guest.shows
        if entry is None or attribute not in shown:
            fault(errno.ENOENT)
        if (mode == os.O_WRONLY) != (attribute in {"inblob", "privlevel"}):
            fault(errno.EACCES)
        if attribute == "inblob":
            return BinarySink(lambda data: self._inblob(entry, data), 64)
        if attribute == "privlevel":
            return Sink(lambda data: self._privlevel(entry, data))
        return Value(lambda: self._show(entry, attribute))

    def _meet(self, what, entry):
        if self.before.get(what):
            self.before[what].pop(0)(entry)
        if what in self.faults:
            fault(self.faults[what])

    def _inblob(self, entry, data):
        self._meet("write inblob", entry)
        entry.count()
        entry.inblob = data

    def _privlevel(self, entry, data):
        self._meet("write privlevel", entry)
        level = int(data)
        if not self.guest.floor <= level <= 3:
            fault(errno.EINVAL)
        entry.count()
        entry.privlevel = level

    def _show(self, entry, attribute):
        self._meet(f"read {attribute}", entry)
        if attribute == "generation":
            return b"%d\n" % entry.written
        if attribute == "provider":
            return self.guest.provider.encode() + b"\n"
        if not entry.inblob:
            fault(errno.EINVAL)
        if entry.blobs is None or entry.read != entry.written:
            entry.blobs = self.guest.report(entry.inblob, entry.privlevel)
            entry.read = entry.written
        return entry.blobs[attribute]


@dataclass
class TdxGuest(Flat):
    """A trust domain: its quotes, and its registers as files.

    ``quoter`` makes a quote of (RTMR3 in hex, 64 bytes).
    """

    quoter: object
    rtmr3: bytes = bytes(48)
    in_flight: bool = False
    reports: int = 0
    provider: str = "tdx_guest"
    shows: frozenset[str] = frozenset()
    faults: dict[str, int] = field(default_factory=dict)

    def report(self, inblob, _privlevel):
        """Make a quote; one at a time, and of 64 bytes only."""
        if self.in_flight:
            fault(errno.EBUSY)
        if len(inblob) != 64:
            fault(errno.EINVAL)
        self.reports += 1
        return {"outblob": self.quoter(self.rtmr3.hex(), inblob)}

    def open(self, name, mode):
        """Open RTMR3: reading is the value, a write of 48 bytes extends it."""
        if name != "rtmr3:sha384":
            fault(errno.ENOENT)
        if "open" in self.faults:
            fault(self.faults["open"])
        return Sink(self._extend) if mode == os.O_WRONLY else Value(lambda: self.rtmr3)

    def _extend(self, data):
        if len(data) != 48:
            fault(errno.EINVAL)
        if "write" in self.faults:
            fault(self.faults["write"])
        self.rtmr3 = hashlib.sha384(self.rtmr3 + data).digest()


def certificate_table(*entries):
    """Return a certificate table as firmware writes it: entries, an empty one, contents."""
    at = 24 * (len(entries) + 1)
    table, contents = b"", b""
    for guid, content in entries:
        table += guid + struct.pack("<II", at + len(contents), len(content))
        contents += content
    return table + bytes(24) + contents


@dataclass
class SnpGuest(Flat):
    """An SEV-SNP guest: reports (unsigned ones), and derived keys over ``/dev/sev-guest``."""

    host_data: bytes
    measurement: bytes = b"m" * 48
    policy: int = 0x30000
    floor: int = 0
    chip: bytes = b"c" * 32
    table: bytes = b""
    reports: int = 0
    status: int = 0
    fails: int = 0
    provider: str = "sev_guest"
    shows: frozenset[str] = frozenset({"privlevel", "privlevel_floor", "auxblob"})

    def report(self, inblob, privlevel):
        """Make a report; of 64 bytes, at a level that the guest may name."""
        if len(inblob) != 64 or privlevel < self.floor:
            fault(errno.EINVAL)
        self.reports += 1
        raw = bytearray(1184)
        struct.pack_into("<IIQ", raw, 0, 2, 0, self.policy)
        struct.pack_into("<II", raw, 0x30, privlevel, 1)
        raw[0x50:0x90], raw[0x90:0xC0] = inblob, self.measurement
        raw[0xC0:0xE0] = self.host_data
        return {"outblob": bytes(raw), "auxblob": self.table}

    def open(self, _name, _mode):
        """Open the device."""
        return SevDevice(self)


@dataclass
class SevDevice(Opened):
    """An open ``/dev/sev-guest``."""

    guest: SnpGuest

    def ioctl(self, request, argument):
        """Derive a key, as the firmware does."""
        version, at, to, _ = struct.unpack("<B7xQQQ", bytes(argument))
        if not version or not at or not to:
            fault(errno.EINVAL)
        if request != 0xC0205301:
            fault(errno.ENOTTY)
        if self.guest.fails:
            fault(self.guest.fails)
        root, reserved, select, vmpl, svn, tcb = struct.unpack("<IIQIIQ", ctypes.string_at(at, 32))
        status = self.guest.status
        if reserved or root > 1 or select >= 64 or not self.guest.floor <= vmpl <= 3:
            status = 0x16
        mixed = (self.guest.policy.to_bytes(8, "little"), b"", b"", self.guest.measurement)
        chosen = [part for bit, part in enumerate(mixed) if select >> bit & 1]
        text = b"|".join((bytes([root, vmpl]), *chosen, struct.pack("<IQ", svn, tcb)))
        key = bytes(32) if status else hmac.digest(self.guest.chip, text, "sha256")
        ctypes.memmove(to, struct.pack("<I28x", status) + key, 64)


# --- Gramine -----------------------------------------------------------------------------


@dataclass
class Gramine(Flat):
    """``/dev/attestation``: values are made at open; each write replaces the one before.

    ``quoter`` makes a quote of 64 bytes. ``before`` is done once, when the quote is opened.
    """

    quoter: object
    kind: str = "dcap"
    key: bytes = b"k" * 16
    faults: dict[str, int] = field(default_factory=dict)
    before: list[object] = field(default_factory=list)
    report_data: bytes = bytes(64)
    quotes: int = 0

    def open(self, name, _mode):
        """Open one of the files."""
        if name in self.faults:
            fault(self.faults[name])
        if name == "user_report_data":
            return Sink(self._save)
        value = self._load(name)
        return Value(lambda: value)

    def _save(self, data):
        self.report_data = data[:64].ljust(64, b"\0")  # silently, as it does

    def _load(self, name):
        if name == "attestation_type":
            return self.kind.encode()
        if name == "keys/_sgx_mrenclave":
            return self.key
        if name != "quote" or self.kind == "none":
            fault(errno.ENOENT)
        if self.before:
            self.before.pop(0)(self)
        self.quotes += 1
        return self.quoter(self.report_data)


# --- Nitro -------------------------------------------------------------------------------


def document(user_data, *, tagged=False):
    """Return what looks like an attestation document, without signatures that hold."""
    payload = {
        "module_id": "i-0-enc0",
        "digest": "SHA384",
        "timestamp": 1_800_000_000_000,
        "pcrs": {number: bytes(48) for number in range(16)},
        "certificate": b"certificate",
        "cabundle": [b"root"],
        "public_key": None,
        "user_data": user_data,
        "nonce": None,
    }
    parts = [cbor2.dumps({1: -35}), {}, cbor2.dumps(payload), bytes(96)]
    return cbor2.dumps(cbor2.CBORTag(18, parts) if tagged else parts)


@dataclass
class Nsm(Flat):
    """``/dev/nsm``. ``answer`` makes the response's value of the request's."""

    answer: object = None
    fails: int = 0
    requests: list[object] = field(default_factory=list)

    def open(self, _name, _mode):
        """Open the device."""
        return NsmDevice(self)


@dataclass
class NsmDevice(Opened):
    """An open ``/dev/nsm``."""

    nsm: Nsm

    def ioctl(self, request, argument):
        """Answer; what does not fit the caller's buffer is cut off."""
        if request != 0xC0200A00:
            fault(errno.EINVAL)
        at, size, to, room = struct.unpack("<QQQQ", bytes(argument))
        if size > 0x1000:
            fault(errno.EMSGSIZE)
        if self.nsm.fails:
            fault(self.nsm.fails)
        asked = cbor2.loads(ctypes.string_at(at, size))
        self.nsm.requests.append(asked)
        raw = self._answer(asked)[: min(room, 0x3000)]
        ctypes.memmove(to, raw, len(raw))
        # The length of what came goes back in the struct.
        ctypes.memmove(ctypes.addressof(argument) + 24, struct.pack("<Q", len(raw)), 8)

    def _answer(self, asked):
        if self.nsm.answer is not None:
            return self.nsm.answer(asked)
        if list(asked) != ["Attestation"]:
            return cbor2.dumps({"Error": "InvalidOperation"})
        told = asked["Attestation"]["user_data"]
        if len(told) > 512:
            return cbor2.dumps({"Error": "InputTooLarge"})
        return cbor2.dumps({"Attestation": {"document": document(told)}})
