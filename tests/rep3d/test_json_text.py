"""JSON that people wrote: any editor's file is read, and what is wrong is said with its place."""

from __future__ import annotations

import pytest

from rep3d.json_text import parse_json

TEXT = '{"labels": {"Léber": 1, "脾臓": 2}}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_of_windows_editors_is_read(encoding: str) -> None:
    assert parse_json(TEXT.encode(encoding)) == {"labels": {"Léber": 1, "脾臓": 2}}
    assert parse_json("\ufeff" + TEXT) == parse_json(TEXT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n "b": 2,\n}', r"line [23], column \d"),
        (b'{"a": 1\n "b": 2}', "line 2, column 2: "),
        (b"", "line 1, column 1"),
        (b"{'a': 1}", "line 1, column 2"),
        ('{\n"Léber": 1}'.encode("latin-1"), "line 2: the byte 0xe9 is no text in utf-8; save it as UTF-8"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' is there twice, with 1 and with 2"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "limit"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(content)


def test_a_key_twice_with_one_value_is_certain() -> None:
    assert parse_json('{"a": 1, "a": 1}') == {"a": 1}
