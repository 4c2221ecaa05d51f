"""The files of the status page are in memory from the start on."""

import logging
from pathlib import Path

import pytest

from ods.assets import read_assets


def test_each_file_is_served_under_its_path_with_its_kind(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>hello")
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "draw.js").write_text("draw()")
    (tmp_path / "LICENSE").write_text("free")
    assets = read_assets(tmp_path)
    assert {path: asset.kind.split(";")[0] for path, asset in assets.items()} == {
        "index.html": "text/html",
        "charts/draw.js": "text/javascript",
        "LICENSE": "text/plain",
    }
    assert assets["charts/draw.js"].body == b"draw()"


def test_the_tag_of_a_file_changes_with_its_content(tmp_path: Path) -> None:
    tags = set()
    for text in ("a", "b", "a"):
        (tmp_path / "index.html").write_text(text)
        tags.add(read_assets(tmp_path)["index.html"].tag)
    assert len(tags) == 2
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)


def test_without_a_page_ods_starts_all_the_same_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_assets(tmp_path / "none") == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
