"""A real OpenID provider in Node.js, installed from a lock file, and a browser before it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "tests" / "e2e" / "oidc"
NODE, NPM = shutil.which("node"), shutil.which("npm")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MIN_NODE = 20

_element = "element-6066-11e4-a52e-4f735466cecf"


def lacking() -> str:
    """Return what this machine lacks, for a skipped test to say; nothing if it has all."""
    if not (NODE and NPM):
        return "needs node and npm"
    if not (CHROMIUM and DRIVER):
        return "needs chromium and chromedriver (chromium-driver)"
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(said.removeprefix("v").partition(".")[0])
    return "" if major >= MIN_NODE else f"needs node {MIN_NODE}, this is {said.strip()}"


def installed() -> Path:
    """Return a folder with the scripts and all that they import, exactly as the lock file says.

    Raises:
        RuntimeError: npm could not: no network, or other bytes than the lock file's.
    """
    files = [SOURCE / name for name in ("package.json", "package-lock.json", ".npmrc")]
    lock = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
    folder = ROOT / "build" / "oidc-provider" / lock
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        done = subprocess.run(
            [NPM, "ci", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"npm ci: {done.stderr[-500:]}")
        (folder / "complete").touch()
    for script in SOURCE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run the provider and give its issuer."""
    environment = {**os.environ, "NODE_ENV": "test", "NODE_NO_WARNINGS": "1"}
    with subprocess.Popen(
        [NODE, "provider.mjs"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            said = (re.fullmatch(r"ready (\S+)\n", line) for line in process.stdout)
            found = next(filter(None, said), None)
            if found is None:
                raise RuntimeError("the provider ended before it was ready")
            yield found[1]
        finally:
            process.stdin.close()
            process.wait(30)


class Person:
    """Somebody before a browser, who signs in where a program asks (W3C WebDriver)."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port, self._path = port, ""
        options = {
            "binary": CHROMIUM,
            "args": [
                "--headless=new",
                "--no-sandbox",
                f"--user-data-dir={profile}",
                # The provider's development pages ask for a font of somebody else's.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        }
        # A page that is on its way is waited for, by what it is to have.
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"implicit": 10_000}}}
        made = self._command("/session", capabilities=wanted)
        self._path = f"/session/{made['sessionId']}"
        self.name = "owner"
        self.declines = False
        self.asked: list[str] = []
        """Whom the provider's pages asked for since the last visit: ``login``, ``consent``."""

    def visit(self, address: str) -> None:
        """Open an address, and do what its pages ask until the browser is sent back."""
        self.asked = []
        self._command("/url", url=address)
        for _ in range(8):
            # One look at the page: by the second it may be another one.
            page = self._one("[name=prompt], pre")
            if "/signed-in?" in self._command("/url", "GET") and not self._is_form(page):
                return
            self._step(page)
            self._wait_until_gone(page)
        raise RuntimeError("the provider did not send the browser back")

    def text(self) -> str:
        """Return what the page says."""
        said = self._command(f"/element/{self._one('body')}/text", "GET")
        return str(said)

    def close(self) -> None:
        """End the browser."""
        self._command("", "DELETE")

    def _step(self, page: str) -> None:
        prompt = str(self._command(f"/element/{page}/attribute/value", "GET"))
        self.asked.append(prompt)
        if self.declines:
            self._click("a[href$=abort]")
            return
        if prompt == "login":
            self._write("[name=login]", self.name)
            self._write("[name=password]", "any")
        self._click("[type=submit]")

    def _is_form(self, page: str) -> bool:
        return self._command(f"/element/{page}/name", "GET") == "input"

    def _wait_until_gone(self, page: str) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                self._is_form(page)
            except RuntimeError:  # stale: its document was left
                return
        raise RuntimeError("the provider's page stays, whatever is done on it")

    def _write(self, selector: str, text: str) -> None:
        self._command(f"/element/{self._one(selector)}/value", text=text)

    def _click(self, selector: str) -> None:
        self._command(f"/element/{self._one(selector)}/click")

    def _one(self, selector: str) -> str:
        found = self._command("/element", using="css selector", value=selector)
        return str(found[_element])

    def _command(self, name: str, method: str = "POST", **body: object):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        sent = json.dumps(body) if method == "POST" else None
        connection.request(method, self._path + name, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        value = json.loads(answer.read())["value"]
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{name}: {value}")
        return value


@contextlib.contextmanager
def person(profile: Path) -> Iterator[Person]:
    """Start a browser of its own, and give who sits before it."""
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            said = (re.search(r"successfully on port (\d+)", line) for line in driver.stdout)
            one = Person(int(next(filter(None, said))[1]), profile)
            yield one
            one.close()
        finally:
            driver.terminate()
            driver.wait(30)
