"""Who is behind a de-identified image: keyed codes instead of patients and UIDs, and the file that leads back.

A code is HMAC-SHA256 of what it stands for, with a random key of the studies folder: the same patient, study or series
gets the same code in every upload, so that series stay together, and nobody without the key can try names out. The key
and the way back lie in two files that only the server's user may read:

    identities.key      the key, 64 hexadecimal digits
    identities.jsonl    one line for each series of each upload: codes and UIDs, and what they stand for
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rep3d.errors import DamagedFileError

__all__ = ["KEY_FILE", "UID_ROOT", "Pseudonyms", "is_patient_code"]

KEY_FILE = "identities.key"
UID_ROOT = "2.25."
"""What UIDs begin with that are made of 128 bits, as ours are."""
_MAP = "identities.jsonl"
_PATIENT, _SERIES, _PLACE = 12, 8, 10  # hexadecimal digits of a code


def is_patient_code(text: str) -> bool:
    """Return whether a text looks like a patient's code."""
    return len(text) == _PATIENT and not set(text) - set("0123456789abcdef")


class Pseudonyms:
    """The codes of one studies folder.

    Args:
        folder: the server's own folder; the key is made in it when the first code is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secret: bytes | None = None
        self._guard = threading.Lock()

    def code(self, kind: str, value: str) -> str:
        """Return 32 hexadecimal digits for a value; ``kind`` keeps a UID and a name of the same text apart.

        Raises:
            DamagedFileError: if the key cannot be read.
        """
        if self._secret is None:
            with self._guard:
                self._secret = self._secret or self._read_key()
        return hmac.new(self._secret, f"{kind}\0{value}".encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[
            :32
        ]

    def uid(self, original: str) -> str:
        """Return the UID that takes a UID's place, made as ISO/IEC 9834-8 makes them of 128 bits."""
        return f"{UID_ROOT}{int(self.code('uid', original), 16)}"

    def time(self, original: str) -> str:
        """Return a time of the day that says nothing, and is another one for another time."""
        second = int(self.code("time", original), 16) % 86_400
        return f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"

    def patient(self, identity: tuple[str, ...]) -> str:
        """Return a patient's code, of id, name and birth date."""
        return self.code("patient", "\0".join(identity))[:_PATIENT]

    def place(self, path: str) -> str:
        """Return the code of a file or folder in the studies folder."""
        return self.code("place", path)[:_PLACE]

    @staticmethod
    def image_name(modality: str, patient: str, series: str) -> str:
        """Return the name of a series' image.

        Args:
            modality: such as ``"CT"``.
            patient: its code.
            series: the UID that took the place of its own.
        """
        kind = "".join(sign for sign in modality if sign.isalnum()) or "image"
        return f"{kind}-{patient}-{int(series.rpartition('.')[2] or 0):032x}"[: len(kind) + _PATIENT + _SERIES + 2]

    def note(self, records: list[dict[str, Any]]) -> None:
        """Append to the way back what is not in it, and wait until it is on the disk."""
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records if not self._knows(record))
        if not lines:
            return
        with self._guard, open(self._folder / _MAP, "ab", opener=_private) as file:
            if file.tell() and not self._ends_whole():  # a line that a crash cut short
                lines = b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def find(self, word: str) -> list[dict[str, Any]]:
        """Return what was noted that a code, a new UID, or the name of an image or folder belongs to; newest first."""
        return [record for record in reversed(list(self._records(word))) if _is_of(record, word)]

    def find_place(self, studies: Path, code: str) -> Path | None:
        """Return the file or folder below the studies folder that has a code, or None."""
        for folder, folders, files in os.walk(studies):
            for name in (*folders, *files):
                path = Path(folder, name)
                if self.place(path.relative_to(studies).as_posix()) == code:
                    return path
        return None

    def _knows(self, record: Mapping[str, Any]) -> bool:
        return any(record["uids"].keys() <= known["uids"].keys() for known in self._records(record["series"]))

    def _records(self, word: str) -> Iterator[dict[str, Any]]:
        """Yield the records in which a word may stand."""
        if not (self._folder / _MAP).exists():
            return
        part = word.partition("_")[0].encode()  # of the name of a second image of one series
        with (self._folder / _MAP).open("rb") as file:
            for line in file:
                if part not in line:
                    continue
                with contextlib.suppress(ValueError):  # of a crash; what follows is whole
                    record = json.loads(line)
                    if isinstance(record, dict) and isinstance(record.get("uids"), dict):
                        yield record

    def _ends_whole(self) -> bool:
        with (self._folder / _MAP).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"

    def _read_key(self) -> bytes:
        file = self._folder / KEY_FILE
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(file, "xb", opener=_private) as new:
                new.write(secrets.token_hex(32).encode())
                new.flush()
                os.fsync(new.fileno())
        try:
            key = bytes.fromhex(file.read_bytes().decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != 32:
            raise DamagedFileError(
                f"{KEY_FILE} in the server's folder is damaged: without it, no DICOM files can be de-identified as "
                f"before. Bring it back from a backup; or move it away, and series that come in again are new ones."
            )
        return key


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_of(record: Mapping[str, Any], word: str) -> bool:
    image = str(record.get("image"))
    return (
        word in record["uids"]
        or word in (record.get("patient"), record.get("folder"), image)
        or word.startswith(f"{image}_")
    )
