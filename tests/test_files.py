"""Files that are there whole or not at all."""

import pytest

from embedkit.files import whole_file


def test_the_second_content_replaces_the_first_whole(tmp_path):
    """Nothing of a longer earlier file shows through; no temporary file stays."""
    path = tmp_path / "record.json"

    for content in (b"first, and longer", b"second"):
        with whole_file(path) as file:
            file.write(content)

    assert path.read_bytes() == b"second"
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_nothing_shows_before_the_end(tmp_path):
    """While the file is being written, its name is not there."""
    path = tmp_path / "record.json"

    with whole_file(path) as file:
        file.write(b"half")
        seen = path.exists()

    assert not seen
    assert path.exists()


def test_an_error_leaves_what_was_there(tmp_path):
    """The earlier content stays, the temporary file does not."""
    path = tmp_path / "record.json"
    path.write_bytes(b"before")

    with pytest.raises(OSError, match="disk full"), whole_file(path) as file:  # noqa: PT012
        file.write(b"half")
        raise OSError("disk full")

    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]
