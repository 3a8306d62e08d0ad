"""Going on with a cube that was killed."""

from attnkit.tasks.hsi_enhance.journal import Journal
from attnkit.tasks.hsi_enhance.source import Region

FIRST, SECOND = Region(0, 1, 0, 4, 0, 9), Region(0, 1, 4, 8, 0, 9)


def test_tiles_are_remembered_and_a_torn_line_is_dropped(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, {"input": "a", "gain": 2.0})
    journal.start({FIRST: 3})
    journal.add(SECOND, 0)
    journal.close()
    path.write_text(path.read_text() + "[0, 1, 8, 1")
    assert Journal(path, {"gain": 2.0, "input": "a"}).read() == {FIRST: 3, SECOND: 0}


def test_a_journal_of_other_settings_is_none(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, {"input": "a"})
    assert journal.read() is None
    journal.start({})
    journal.close()
    assert journal.read() == {}
    assert Journal(path, {"input": "b"}).read() is None
    for rubbish in ("not json\n", "", '{"input": "a"}\n5\n', '{"input": "a"}\n[1, 2]\n'):
        path.write_text(rubbish)
        assert journal.read() is None
