"""RTMR3 and its log: the order of log and register, crashes, strangers."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placet_testing.kernels import MEASUREMENTS, Kernel, TdxGuest
from placet_testing.machines import IMAGE

from placet.attest.produce.rtmr import (
    MAX_LOG,
    confirmed,
    extend_by_event,
    extend_rtmr3,
    read_log,
)
from placet.core.limits import MAX_EVENTS
from placet.core.profile import rtmr3_of, rtmr3_of_image
from placet.errors import (
    BindingError,
    ConflictError,
    MalformedError,
    PlacetError,
    TooLargeError,
    UnavailableError,
    VerificationError,
)

ZERO = "00" * 48
EVENT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_categories=["Cc", "Zs", "Zl"]),
    min_size=1,
    max_size=20,
).filter(str.isprintable)


class Bench:
    """A trust domain's register, and a log beside it."""

    def __init__(self, folder):
        self.guest = TdxGuest(None)
        self.kernel = Kernel({MEASUREMENTS: self.guest})
        self.log = folder / "run" / "rtmr3.log"

    @property
    def register(self):
        """Return RTMR3 as hex."""
        return self.guest.rtmr3.hex()

    def image(self, image=IMAGE):
        """Extend by the image."""
        extend_rtmr3(image, log=self.log, machine=self.kernel.machine)

    def event(self, event):
        """Extend by one more event."""
        extend_by_event(event, log=self.log, machine=self.kernel.machine)

    def write(self, *events, tail=""):
        """Put a log there."""
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_text("".join(f"{event}\n" for event in events) + tail)


@pytest.fixture
def bench(tmp_path):
    """Return a machine that was just started."""
    return Bench(tmp_path)


def test_image_and_events_are_replayed_from_the_log(bench):
    """To the register, event by event."""
    bench.image()
    assert bench.register == rtmr3_of_image(IMAGE)
    bench.event("container: db")
    bench.event("container: web")
    assert read_log(bench.log) == (IMAGE, "container: db", "container: web")
    assert rtmr3_of(read_log(bench.log)) == bench.register
    assert bench.log.read_text() == f"{IMAGE}\ncontainer: db\ncontainer: web\n"
    assert not bench.kernel.open_files


def test_event_is_logged_and_synced_before_the_register_moves(bench, monkeypatch):
    """So the log is never behind."""
    done = []
    synced, extend = os.fsync, bench.guest._extend
    monkeypatch.setattr("os.fsync", lambda fd: (synced(fd), done.append("sync")))
    bench.guest._extend = lambda data: (done.append(bench.log.read_text()), extend(data))
    bench.image()
    assert done == ["sync", f"{IMAGE}\n"]


@pytest.mark.parametrize("register", [b"r" * 48, bytes.fromhex(rtmr3_of_image(IMAGE))])
def test_image_is_refused_once_anything_was_measured(register, bench):
    """Also the same image a second time; and the log stays as it is."""
    bench.guest.rtmr3 = register
    bench.write(IMAGE)
    with pytest.raises(ConflictError, match="not zero"):
        bench.image()
    assert bench.guest.rtmr3 == register
    assert read_log(bench.log) == (IMAGE,)


def test_event_before_the_image_is_refused(bench):
    """The first event is the image; a log alone makes it none."""
    with pytest.raises(ConflictError, match="first"):
        bench.event("container: db")
    bench.write(IMAGE)
    with pytest.raises(ConflictError, match="first"):
        bench.event("container: db")
    assert bench.register == ZERO


IMAGES = ("", "latest", "sha256:", "sha256:" + "AB" * 32, "sha256:" + "1a" * 31, IMAGE + "\n")


@pytest.mark.parametrize("image", IMAGES)
def test_image_that_is_no_digest_is_malformed(image, bench):
    """Nothing is logged for it."""
    with pytest.raises(MalformedError):
        bench.image(image)
    assert not bench.log.exists()
    assert bench.register == ZERO


EVENTS = {
    "nothing": "",
    "a line break": "a\nb",
    "a control character": "a\0b",
    "too long": "x" * 201,
    "an image": "sha256:" + "ff" * 32,
    "nearly an image": "sha256:x",
}


@pytest.mark.parametrize("event", EVENTS)
def test_event_that_no_log_could_hold_is_malformed(event, bench):
    """A second image least of all: verifiers refuse the whole log then."""
    bench.image()
    with pytest.raises(MalformedError):
        bench.event(EVENTS[event])
    assert bench.register == rtmr3_of_image(IMAGE)
    assert read_log(bench.log) == (IMAGE,)


# --- crashes -----------------------------------------------------------------------------


def test_crash_between_log_and_register_leaves_one_event_that_does_not_count(bench):
    """Readers take what the register confirms; the next extension cuts the rest away."""
    bench.image()
    bench.guest.faults["write"] = errno.EIO
    with pytest.raises(UnavailableError):
        bench.event("container: db")
    del bench.guest.faults["write"]
    assert read_log(bench.log) == (IMAGE, "container: db")
    assert confirmed(read_log(bench.log), bench.register) == (IMAGE,)
    bench.event("container: web")
    assert read_log(bench.log) == (IMAGE, "container: web")
    assert rtmr3_of(read_log(bench.log)) == bench.register


def test_crash_before_the_image_was_extended_is_begun_again(bench):
    """With the image logged and the register still zero."""
    bench.guest.faults["write"] = errno.EIO
    with pytest.raises(UnavailableError):
        bench.image()
    del bench.guest.faults["write"]
    assert confirmed(read_log(bench.log), bench.register) == ()
    bench.image()
    assert read_log(bench.log) == (IMAGE,)


def test_log_of_an_earlier_boot_is_cut_away(bench):
    """A register that is zero confirms nothing of it."""
    bench.write(IMAGE, "container: of yesterday")
    assert confirmed(read_log(bench.log), bench.register) == ()
    bench.image()
    assert read_log(bench.log) == (IMAGE,)


def test_torn_last_line_does_not_count_and_is_overwritten(bench):
    """A line that does not end was never synced, so never extended."""
    bench.image()
    bench.write(IMAGE, tail="container: d")
    assert read_log(bench.log) == (IMAGE,)
    bench.event("e")
    assert bench.log.read_text() == f"{IMAGE}\ne\n"


@given(events=st.lists(EVENT, max_size=6), data=st.data())
def test_register_anywhere_behind_the_log_gives_that_prefix(events, data):
    """However many events the log is ahead."""
    count = data.draw(st.integers(0, len(events)))
    register = rtmr3_of(events[:count])
    assert rtmr3_of(confirmed(tuple(events), register)) == register


def test_log_that_the_register_does_not_confirm_is_refused(bench):
    """By a typed error, at reading and at extending."""
    bench.image()
    bench.write("sha256:" + "ff" * 32)
    with pytest.raises(BindingError):
        confirmed(read_log(bench.log), bench.register)
    with pytest.raises(VerificationError):
        bench.event("container: db")


def test_stranger_who_extends_at_the_same_time_is_noticed(bench):
    """The register came elsewhere than where the log leads."""
    extend = bench.guest._extend

    def two(data):
        extend(bytes(48))
        extend(data)

    bench.guest._extend = two
    with pytest.raises(VerificationError):
        bench.image()


def test_two_that_extend_at_once_do_so_one_after_the_other(bench):
    """The log is locked from reading to extending."""
    bench.image()
    names = [f"container: {number}" for number in range(8)]
    threads = [threading.Thread(target=bench.event, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_log(bench.log)[1:]) == names
    assert rtmr3_of(read_log(bench.log)) == bench.register


# --- limits and errors -------------------------------------------------------------------


def test_log_takes_as_many_events_as_evidence_may_hold(bench):
    """And no more."""
    bench.image()
    for number in range(1, MAX_EVENTS):
        bench.event(f"event {number}")
    before = bench.register
    with pytest.raises(ConflictError, match="no more"):
        bench.event("one more")
    assert bench.register == before
    assert len(read_log(bench.log)) == MAX_EVENTS


@given(raw=st.binary(max_size=60))
def test_any_log_raises_only_our_errors(raw, tmp_path_factory):
    """Whatever lies there."""
    log = tmp_path_factory.mktemp("log") / "rtmr3.log"
    log.write_bytes(raw)
    try:
        events = read_log(log)
    except PlacetError:
        return
    assert all(event and event.isprintable() for event in events)


def test_log_is_limited_and_may_be_absent(bench):
    """Its length is checked before it is read; a folder in its place is an error."""
    assert read_log(bench.log) == ()
    bench.write(tail="x" * (MAX_LOG + 1))
    with pytest.raises(TooLargeError):
        read_log(bench.log)
    with pytest.raises(UnavailableError):
        read_log(bench.log.parent)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EPERM])
def test_register_that_cannot_be_opened_is_unavailable(number, bench):
    """A kernel before 6.16 has none."""
    bench.guest.faults["open"] = number
    with pytest.raises(UnavailableError):
        bench.image()
    assert read_log(bench.log) == ()


def test_log_that_cannot_be_opened_leaves_the_register_alone(bench, tmp_path):
    """A link in its place, say."""
    bench.log.parent.mkdir()
    bench.log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError):
        bench.image()
    assert bench.register == ZERO
    assert not (tmp_path / "elsewhere").exists()
