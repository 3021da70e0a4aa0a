"""A spare key's file: written once, taken up again by the try after one that ended early (I16)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from placet.cli.files import load_key, local_files, read_json, write_json
from placet.client.signing import SigningKey
from placet.client.whole_files import settle
from placet.core.signer import KeySigner


@dataclass(frozen=True, slots=True)
class Spare:
    """A key that is written to a file elsewhere, and then made part of the owner.

    Its public part is noted in the owner's folder before the file is written. So a file that
    an earlier try left is known again; any other is somebody else's, and is not taken.
    """

    key: SigningKey
    file: Path
    note: Path
    there: bool
    """An earlier try wrote it."""

    @classmethod
    def at(cls, file: Path, home: Path, label: str, algorithm: Literal["ed25519", "p256"]) -> Spare:
        """Return the key that an earlier try wrote to a file, or a new one. Writes nothing.

        Args:
            file: Where the key goes.
            home: The owner's folder.
            label: Name of the signer.
            algorithm: Of a new key.
        """
        note = home / "spare.json"
        if file.exists() and note.exists():
            meant, found = read_json(note, KeySigner, "public signer"), load_key(file, label)
            if found.signer.public_key == meant.public_key:
                return cls(found, file, note, there=True)
        return cls(SigningKey.generate(label, algorithm), file, note, there=False)

    def save(self) -> None:
        """Have the file be there, durably, before anything names its key.

        Raises:
            NotFoundError: There is another one, or it cannot be written.
        """
        with local_files():
            if self.there:
                settle(self.file)
                return
            if not self.file.exists():
                write_json(self.note, self.key.signer)
            self.key.save(self.file)

    def done(self) -> None:
        """Forget the note: the key is part of the owner."""
        with local_files():
            self.note.unlink(missing_ok=True)
