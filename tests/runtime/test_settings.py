"""Settings are read from a given environment; an error names the variable and the wrong value."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.settings import Port, Secret, Settings, SettingsError, describe, setting


class Example(Settings, frozen=True, kw_only=True):
    port: Annotated[Port, setting("a port")] = 80
    share: Annotated[float, setting("a share", ge=0, le=1)] = 0.5
    quiet: Annotated[bool, setting("no output")] = False
    folder: Annotated[Path | None, setting("a folder")] = None
    mode: Annotated[Literal["a", "b"], setting("a mode")] = "a"
    names: Annotated[tuple[str, ...], setting("names")] = ("x", "y")
    secrets: Annotated[tuple[Secret, ...], setting("secrets")] = ()
    password: Annotated[Secret | None, setting("a password")] = None

    def check(self) -> None:
        if self.quiet and self.mode == "b":
            raise SettingsError("LEDGER_QUIET contradicts LEDGER_MODE=b")


def read(**values: str) -> Example:
    return Example.from_environment({f"LEDGER_{name.upper()}": v for name, v in values.items()})


def test_if_no_variable_is_set_the_settings_are_the_defaults():
    assert read() == Example()


def test_an_empty_variable_is_treated_as_unset():
    assert read(port="", names="  ", password="") == Example()


def test_texts_are_converted_to_the_types_of_the_fields():
    settings = read(
        port=" 8080 ", share="0.25", quiet="true", folder="/x", names="a, b,,c", password="p"
    )
    assert (settings.port, settings.share, settings.quiet) == (8080, 0.25, True)
    assert (settings.folder, settings.names) == (Path("/x"), ("a", "b", "c"))
    assert settings.password == Secret("p")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_a_switch_is_a_word_or_a_digit(text, value):
    assert read(quiet=text).quiet is value


@pytest.mark.parametrize(
    ("name", "text"),
    [("port", "0"), ("port", "70000"), ("port", "http"), ("share", "1.1"), ("quiet", "maybe")],
)
def test_the_error_for_a_wrong_value_names_the_variable_and_the_value(name, text):
    with pytest.raises(SettingsError, match=f"^LEDGER_{name.upper()}: .*{text}"):
        read(**{name: text})


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(SettingsError, match="contradicts"):
        read(quiet="true", mode="b")


def test_unknown_variables_are_ignored():
    assert Example.from_environment({"PORT": "1", "LEDGER_UNKNOWN": "x"}) == Example()


def test_secrets_are_read_and_hidden():
    settings = read(secrets="whsec_test_key_1,whsec_test_key_2", password="pass_3")
    assert [secret.reveal() for secret in settings.secrets] == [
        "whsec_test_key_1",
        "whsec_test_key_2",
    ]
    for shown in (repr(settings), str(settings), f"{settings.secrets}"):
        assert "whsec" not in shown
        assert "pass_3" not in shown


def test_secrets_are_equal_if_their_texts_are_equal():
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a") != "a"


@given(st.text(min_size=1))
def test_a_secret_is_never_shown(value):
    assert repr(Secret(value)) == "Secret('…')" == str(Secret(value))


def test_every_setting_is_listed_with_its_default_and_its_description():
    lines = {line.variable: (line.default, line.text) for line in describe(Example)}
    assert lines["LEDGER_PORT"] == ("80", "a port")
    assert lines["LEDGER_SHARE"] == ("0.5", "a share")
    assert lines["LEDGER_QUIET"] == ("false", "no output")
    assert lines["LEDGER_FOLDER"] == ("", "a folder")
    assert lines["LEDGER_NAMES"] == ("x,y", "names")
    assert lines["LEDGER_SECRETS"] == ("", "secrets")
    assert list(lines) == [f"LEDGER_{name.upper()}" for name in Example.__struct_fields__]


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        read().port = 1
