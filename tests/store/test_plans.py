"""Plans kept in a store."""

from embedkit.files.files import files_at
from embedkit.store.plans import read_plan, write_plan


def test_a_plan_comes_back_until_another_replaces_it(tmp_path):
    """Each pass has its own; one without is None."""
    files = files_at(tmp_path)
    write_plan(files, "abc", '{"block": 8}')
    write_plan(files, "def", "×")
    write_plan(files, "abc", '{"block": 16}')

    assert read_plan(files, "abc") == '{"block": 16}'
    assert read_plan(files, "def") == "×"
    assert read_plan(files, "ghi") is None
    assert files.names("_embedkit/plans") == ["abc.json", "def.json"]
