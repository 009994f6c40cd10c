"""The site shows the pictures that the page's test has made."""

from pathlib import Path

from website.hooks import gallery, pictures


def test_pictures_are_shown_with_what_they_show(tmp_path: Path) -> None:
    for name in ("order-dark-360.png", "overview-light-1280.png", "another.png"):
        (tmp_path / name).touch()
    assert gallery(pictures(tmp_path)) == (
        "\n\n![order, dark, 360 pixels wide](images/page/order-dark-360.png)"
        "\n\n![overview, light, 1280 pixels wide](images/page/overview-light-1280.png)"
    )


def test_where_there_are_none_nothing_is_shown(tmp_path: Path) -> None:
    assert gallery(pictures(tmp_path / "nowhere")) == ""
