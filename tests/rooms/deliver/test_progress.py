from hypothesis import given
from hypothesis import strategies as st

from pipeline.deliver.progress import NOTHING_KNOWN, Progress, read_note


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
    for text in (None, "", "hello", "2;a;b", "1;zz;", "1;a;", "1;a;-,"):
        assert read_note(5, text) == NOTHING_KNOWN
