"""What is remembered: typed, and never a reason not to work."""

from __future__ import annotations

import pytest
from Rep3DLabelLib.settings import LocalChoice, Settings
from Rep3DLabelLib.view import Options


def test_addresses_are_a_history_without_repeats() -> None:
    store: dict[str, str] = {}
    settings = Settings(store)
    for number in [*range(12), 5]:
        settings.remember(f"http://{number}")
    assert settings.addresses[:3] == ["http://5", "http://11", "http://10"]
    assert len(settings.addresses) == 10 and Settings(store).addresses == settings.addresses


def test_options_come_back_and_wrong_ones_are_defaults() -> None:
    store: dict[str, str] = {}
    Settings(store).save_options(Options(auto_run=True, views=4, user="anna"))
    assert Settings(store).options == Options(auto_run=True, views=4, user="anna")
    store["options"] = '{"auto_run": 1, "views": true, "into": null, "more": 5, "user": "ben"}'
    assert Settings(store).options == Options(user="ben")


@pytest.mark.parametrize("text", ["", "{", "5", '"a"', "[1, 2]", "null"])
def test_what_cannot_be_read_is_as_if_it_were_not_there(text: str) -> None:
    settings = Settings(dict.fromkeys(("addresses", "options", "keys", "certificates", "choice/model", "local"), text))
    assert settings.options == Options() and settings.local == LocalChoice()
    assert settings.addresses == [] and settings.api_key("a") == settings.certificate("a") == ""
    assert settings.choice("model") in ("", "a")


def test_keys_are_kept_for_their_server_only_and_can_be_forgotten() -> None:
    settings = Settings({})
    settings.keep_key("http://a", "secret")
    settings.keep_key("http://b", "other")
    settings.keep_key("http://a", "")
    assert (settings.api_key("http://a"), settings.api_key("http://b")) == ("", "other")


def test_what_is_kept_for_an_address_is_found_however_it_is_written() -> None:
    settings = Settings({})
    settings.keep_key(" gpu:8000/ ", "secret")
    settings.keep_certificate("HTTP://gpu:8000", "/etc/hospital.pem")
    assert settings.api_key("http://gpu:8000") == "secret"
    assert settings.certificate("gpu:8000") == "/etc/hospital.pem" and settings.certificate("gpu:8001") == ""
    settings.keep_certificate("gpu:8000", "")
    settings.keep_key("no address?", "a")
    assert settings.certificate("http://gpu:8000") == "" and settings.api_key(" no address?") == "a"


def test_choices_and_the_local_server() -> None:
    settings = Settings({})
    settings.choose("model", "amos_ct")
    settings.save_local(LocalChoice("python", "app", "studies", "a,b"))
    assert settings.choice("model") == "amos_ct" and settings.local.labels == "a,b"
