"""Which release of the vault runs here: by its own evidence, as others verify it (spec/12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from placet.attest.produce import Producer
from placet.attest.trust import TrustAnchor
from placet.attest.verify import EvidenceVerifier
from placet.core.limits import MAX_GRACE
from placet.core.profile import code_digest
from placet.errors import PlacetError, UnavailableError


class OwnRelease:
    """The code id of this process; found once, when it is asked for.

    Args:
        producer: Of this process.
        trust: Roots of its measured config.
        verify: Verifies evidence.
        now: Returns Unix seconds.
    """

    def __init__(
        self,
        producer: Producer,
        trust: Sequence[TrustAnchor],
        verify: EvidenceVerifier,
        now: Callable[[], int],
    ) -> None:
        self._producer, self._trust, self._verify, self._now = producer, trust, verify, now
        self._code = ""

    def __call__(self) -> str:
        """Return it.

        Raises:
            UnavailableError: Its evidence does not verify now, by its own roots.
        """
        if not self._code:
            evidence = self._producer.app_report(b"placet-vault: which release is this?")
            try:
                shown = self._verify(evidence, trust=self._trust, now=self._now(), grace=MAX_GRACE)
            except PlacetError as e:
                raise UnavailableError(
                    f"this vault's own evidence does not verify: {e.type}: {e.detail}",
                    "Give it collateral: placet collateral fetch.",
                ) from e
            about = self._producer.describe()
            self._code = code_digest(about.app, about.image, about.config, shown.measurement)
        return self._code
