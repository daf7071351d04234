"""multipart/form-data in both directions: a streamed upload body, and a decoder for the answer to an inference.

`requests` alone reads a whole file into memory to upload it and cannot decode a multipart answer; the usual remedy,
requests_toolbelt, is not part of Slicer's Python. Format: RFC 2046 section 5.1 and RFC 7578.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from types import TracebackType

from ..errors import BadAnswer, LocalProblem
from ..files import image_suffix
from .transfers import Watch

__all__ = ["MultipartUpload", "Part", "parse_multipart"]


class MultipartUpload:
    """The body of an upload: one file and JSON fields, read from disk while it is sent.

    The file is sent under a neutral name with its image suffix only: the server takes everything after the first dot of
    the name for the suffix, and a patient's name has no business in a header.

    Args:
        field: Form field that carries the file.
        path: File to send.
        fields: Further form fields; each value is sent as JSON.
        watch: Who watches the upload. It can be stopped until its last block is on the way: from then on the server
            may have carried it out.

    Raises:
        LocalProblem: The file does not exist, is empty, is not a file, or cannot be read.
    """

    def __init__(self, field: str, path: Path, fields: Mapping[str, object], watch: Watch | None = None) -> None:
        self._watch = watch or Watch()
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._path = path
        try:
            if not path.is_file():
                raise LocalProblem(f"Expected a file to send, but there is none at '{path}'. Save it there first.")
            size = path.stat().st_size
            self._file = path.open("rb")
        except OSError as error:
            raise LocalProblem(
                f"Cannot read '{path}': {error.strerror}. Check the file and its permissions."
            ) from error
        if not size:
            self._file.close()
            raise LocalProblem(f"Expected an image in '{path}', but the file is empty. Save it again.")
        head = b""
        for name, value in fields.items():
            head += _part_header(boundary, f'name="{name}"', "application/json") + json.dumps(value).encode() + b"\r\n"
        filename = f"{field}{image_suffix(path)}"
        head += _part_header(boundary, f'name="{field}"; filename="{filename}"', "application/octet-stream")
        self._head = head
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file_left = size
        self._length = len(self._head) + size + len(self._tail)
        self._read = 0

    def __len__(self) -> int:
        """Bytes of the whole body, which become the Content-Length header."""
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in blocks; requests takes an object with this method for a stream."""
        while True:
            block = self.read(65536)
            if not block:
                return
            yield block

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes of the body, at most `size`; b"" at its end.

        Raises:
            Cancelled: The upload is no longer wanted.
            LocalProblem: The file has changed meanwhile.
        """
        if self._read < self._length:
            self._watch.ask()
        block = self._next(size if size >= 0 else self._length)
        self._read += len(block)
        if block:
            self._watch.tell(self._read, self._length)
        return block

    def _next(self, size: int) -> bytes:
        block, self._head = self._head[:size], self._head[size:]
        if block or not size:
            return block
        if self._file_left:
            block = self._file.read(min(size, self._file_left))
            if not block:
                raise LocalProblem(f"'{self._path}' became shorter while it was sent. Save it again and retry.")
            self._file_left -= len(block)
            return block
        block, self._tail = self._tail[:size], self._tail[size:]
        return block

    def __enter__(self) -> MultipartUpload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _part_header(boundary: str, disposition: str, content_type: str) -> bytes:
    return (
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {content_type}\r\n\r\n"
    ).encode()


@dataclass(frozen=True)
class Part:
    """One part of a multipart answer.

    Attributes:
        content_type: Media type, such as "application/json".
        filename: Name of the file, without folders; "" if the part is not a file.
        content: The bytes, untouched.
    """

    content_type: str
    filename: str
    content: bytes


def parse_multipart(body: bytes, content_type: str) -> dict[str, Part]:
    """Split a multipart body into its parts by field name.

    The headers are read by Python's email package; the contents are cut out of the bytes directly, because that package
    goes through text lines, which costs several times the memory on images.

    Args:
        body: The whole answer.
        content_type: Its Content-Type header, which names the boundary.

    Raises:
        BadAnswer: There is no boundary, a part has no name, or the end is missing (the answer was cut).
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_maintype() != "multipart" or not boundary:
        raise BadAnswer(f"Expected a multipart answer with a boundary, got Content-Type '{content_type}'.")
    delimiter = b"\r\n--" + re.escape(boundary.encode("utf-8", "surrogateescape"))
    # The line break before a delimiter belongs to the delimiter; the first one may stand at the very beginning.
    shifted = b"\r\n" + body
    marks = list(re.finditer(delimiter + rb"(--)?[ \t]*(?:\r\n|\Z)", shifted))
    if not marks or not any(mark.group(1) for mark in marks):
        raise BadAnswer(
            f"Expected a complete multipart answer, but its end is missing after {len(body)} bytes: the connection was "
            "cut or the server broke off. Try again."
        )
    parts: dict[str, Part] = {}
    for index, mark in enumerate(marks):
        if mark.group(1):
            break
        name, part = _parse_part(shifted[mark.end() : marks[index + 1].start()])
        parts[name] = part
    return parts


def _parse_part(data: bytes) -> tuple[str, Part]:
    head, blank, content = data.partition(b"\r\n\r\n")
    if not blank:
        raise BadAnswer("Expected a blank line after the headers of a part of the answer, found none.")
    header = HeaderParser().parsestr(head.decode("utf-8", "replace") + "\r\n\r\n")
    name = header.get_param("name", header="Content-Disposition")
    if not isinstance(name, str) or not name:
        raise BadAnswer(f"Expected a named part in the answer, got headers {head[:200]!r}.")
    filename = os.path.basename((header.get_filename() or "").replace("\\", "/"))
    return name, Part(header.get_content_type(), filename, content)
