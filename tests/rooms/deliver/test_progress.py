from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliver.health import Health, noted
from pipeline.deliver.progress import NOTHING_KNOWN, Note, Progress, read_note


def test_the_position_stands_before_the_first_that_is_open() -> None:
    progress = Progress()
    assert progress.position() is None
    for offset in (5, 6, 9, 10):  # 7 and 8 are control records: nobody sees them
        progress.begin(offset)
    assert progress.position() is not None and progress.position()[0] == 5  # type: ignore[index]
    progress.finish(6)
    progress.finish(10)
    position = progress.position()
    assert position is not None and position[0] == 5
    note = read_note(*position)
    assert [offset for offset in (5, 6, 9, 10, 11) if note.is_done(offset)] == [6, 10]
    progress.finish(5)
    progress.finish(9)
    assert progress.position() == (11, "")


@given(st.lists(st.tuples(st.integers(1, 1000), st.booleans()), min_size=1, max_size=3000))
def test_a_note_never_says_done_of_what_is_open(steps: list[tuple[int, bool]]) -> None:
    progress, offset = Progress(), 10**12
    offsets: dict[int, bool] = {}
    for distance, done in steps:
        offset += distance
        progress.begin(offset)
        offsets[offset] = done
    for each, done in offsets.items():
        if done:
            progress.finish(each)
    position = progress.position()
    assert position is not None and len(position[1]) < 4_000
    note = read_note(*position)
    for each, done in offsets.items():
        if each >= position[0]:
            assert not note.is_done(each) or done
        else:
            assert done
    if len(position[1]) < 2_900:
        assert (
            all(note.is_done(each) for each, done in offsets.items() if done and each > position[0]) or not position[1]
        )


def test_a_note_of_another_form_is_no_note() -> None:
    for text in (None, "", "hello", "2;a;b", "1;zz;", "1;a;-,", "|17|HTTP 503"):
        assert read_note(5, text) == NOTHING_KNOWN


def test_what_is_said_of_the_destination_behind_a_note_leaves_the_note_as_it_is() -> None:
    fails = Health("crm", False, 1_790_000_000_000, "x" * 5_000)
    for note in ("1;a;1,2", ""):
        assert read_note(5, noted(note, fails)) == read_note(5, note)
        assert noted(note, Health("crm", True, 1)) == note
    assert len(noted("n" * 3_003, fails).encode()) < 4_000, "a broker keeps no more beside a position"


def test_what_was_known_before_stays_known_until_it_is_read_again() -> None:
    before = Note(100, frozenset({10, 40, 60}))
    progress = Progress(before)
    for offset in (10, 11, 20):
        progress.begin(offset)
    progress.finish(11)
    progress.finish(20)
    position = progress.position()
    assert position is not None and position[0] == 10
    assert read_note(*position) == before
    progress.finish(10)
    position = progress.position()
    assert position is not None and position[0] == 21
    assert read_note(*position) == Note(100, frozenset({40, 60}))
