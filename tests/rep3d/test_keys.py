"""Keys: what is kept of them, what they open and until when, and the commands that change them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rep3d.cli.main import app
from rep3d.errors import DamagedFileError, Rep3DError
from rep3d.keys import KeyBook


def test_a_key_opens_until_it_ends_and_its_text_is_kept_nowhere(tmp_path: Path) -> None:
    book = KeyBook(tmp_path)
    anna, first = book.make("annotator", "Anna")
    ben, second = book.make("admin", "Ben", days=1)
    assert book.find(first) == anna and book.find(second) == ben
    assert [key.state for key in book.all()] == ["valid", "valid"]
    kept = book.path.read_text(encoding="utf-8")
    assert not any(part in kept for text in (first, second) for part in (text, text.split("_", 2)[2]))
    assert anna.hash != ben.hash and anna.salt != ben.salt
    book.expire(ben.id, 0)
    book.revoke(anna.id)
    assert [key.state for key in book.all()] == ["revoked", "expired"]
    assert book.find(first) is None and book.find(second) is None
    book.expire(anna.id, 10)
    assert book.find(first) is None, "what was revoked stays revoked"


@pytest.mark.parametrize("change", ["", "_", "rep3d", "rep3d__", "x", "\udcff", "ä", "a" * 100_000])
def test_what_is_no_key_opens_nothing(tmp_path: Path, change: str) -> None:
    book = KeyBook(tmp_path)
    assert book.find(change) is None
    _, text = book.make("admin", "Ben")
    wrong = [change, text[:-1] + change, text[: text.rindex("_") + 1] + change, f"x{text}", text.removeprefix("rep3d_")]
    assert [found for found in wrong if found != text and book.find(found)] == []


def test_another_process_is_seen_at_once(tmp_path: Path) -> None:
    server, terminal = KeyBook(tmp_path), KeyBook(tmp_path)
    assert server.all() == []
    key, text = terminal.make("reviewer", "Rosa")
    assert server.find(text) == key
    terminal.revoke(key.id)
    assert server.find(text) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:50],
        lambda text: text.replace('"annotator"', '"owner"'),
        lambda text: text.replace('"hash"', '"hush"'),
        lambda text: text.replace("+00:00", ""),
    ],
)
def test_a_damaged_file_opens_nothing_and_is_kept(tmp_path: Path, damage: object) -> None:
    book = KeyBook(tmp_path)
    _, text = book.make("annotator", "Anna", days=3)
    assert callable(damage)
    book.path.write_text(damage(book.path.read_text(encoding="utf-8")), encoding="utf-8")
    before = book.path.read_bytes()
    for ask in (lambda: book.find(text), lambda: book.make("admin", "Ben"), lambda: KeyBook(tmp_path).find(text)):
        with pytest.raises(DamagedFileError, match="who may come in"):
            ask()
    assert book.path.read_bytes() == before


@pytest.mark.parametrize(
    ("role", "name", "days"),
    [
        ("owner", "Anna", None),
        ("admin", "", None),
        ("admin", " ", None),
        ("admin", "a\nb", None),
        ("admin", "a" * 101, None),
        ("admin", "Anna", -1.0),
        ("admin", "Anna", float("nan")),
        ("admin", "Anna", 1e9),
    ],
)
def test_impossible_keys_are_refused(tmp_path: Path, role: str, name: str, days: float | None) -> None:
    book = KeyBook(tmp_path)
    with pytest.raises(Rep3DError, match=r"^(role|name|days): "):
        book.make(role, name, days)
    assert not book.path.exists()


def test_commands(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["keys", *words, "--studies", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.output

    made = run("make", "--name", "Anna", "--role", "reviewer", "--days", "5")
    text = next(line for line in made.splitlines() if line.startswith("rep3d_"))
    book = KeyBook(tmp_path / "rep3d")
    key = book.find(text)
    assert key is not None and (key.name, key.role) == ("Anna", "reviewer") and key.expires
    listed = run("list")
    assert "Anna" in listed and key.id in listed and "valid" in listed and text not in listed
    run("expire", key.id)
    assert "expired" in run("list")
    run("revoke", key.id)
    assert "revoked" in run("list")
    assert json.loads(book.path.read_text(encoding="utf-8"))["keys"][0]["revoked"]
    unknown = CliRunner().invoke(app, ["keys", "revoke", "nobody", "--studies", str(tmp_path)])
    assert isinstance(unknown.exception, Rep3DError) and key.id in str(unknown.exception)
    nowhere = CliRunner().invoke(app, ["keys", "list", "--studies", str(tmp_path / "nowhere")])
    assert isinstance(nowhere.exception, Rep3DError) and not (tmp_path / "nowhere").exists()
