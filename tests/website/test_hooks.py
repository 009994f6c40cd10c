"""The site shows the pictures that the web page's tests took, unless a picture is out of date."""

import os
from pathlib import Path

import pytest
from mkdocs.exceptions import PluginError

from website.hooks import gallery, pictures, tell


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return a folder with a file of the page; the file was changed at second 100."""
    folder = tmp_path / "page"
    (folder / "views").mkdir(parents=True)
    file = folder / "views" / "order.js"
    file.touch()
    os.utime(file, (100, 100))
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return the folder of the pictures."""
    folder = tmp_path / "made"
    folder.mkdir()
    return folder


def picture(folder: Path, name: str, made_at_s: int = 200) -> Path:
    file = folder / f"{name}.png"
    file.touch()
    os.utime(file, (made_at_s, made_at_s))
    return file


def test_pictures_are_shown_with_a_description(page: Path, made: Path) -> None:
    order, overview = picture(made, "order-dark-360"), picture(made, "overview-light-1280")
    picture(made, "another")
    assert pictures(made, page) == ([order, overview], "")
    assert gallery(["images/page/order-dark-360.png", "images/page/overview-light-1280.png"]) == (
        "\n\n![order, dark, 360 pixels wide](images/page/order-dark-360.png)"
        "\n\n![overview, light, 1280 pixels wide](images/page/overview-light-1280.png)"
    )


def test_a_picture_that_is_older_than_the_page_is_left_out_and_reported(
    page: Path, made: Path
) -> None:
    new = picture(made, "order-dark-360")
    picture(made, "overview-light-1280", made_at_s=99)
    shown, lacking = pictures(made, page)
    assert shown == [new]
    assert "1 of 2 pictures of the page are out of date" in lacking
    assert "pytest tests/kafka/page" in lacking


def test_missing_pictures_are_a_warning_or_an_error_that_names_the_remedy(
    page: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, lacking = pictures(made, page)
    assert shown == []
    monkeypatch.delenv("DOCS_PICTURES", raising=False)
    tell(lacking)
    (line,) = capsys.readouterr().err.splitlines()
    assert "they have not been made" in line
    assert "pytest tests/kafka/page" in line
    monkeypatch.setenv("DOCS_PICTURES", "required")
    with pytest.raises(PluginError, match="they have not been made"):
        tell(lacking)


def test_without_pictures_nothing_is_shown() -> None:
    assert gallery([]) == ""
