"""What `headwater up` shows: events that came, and what really waits, not the marks and ends of transactions in a log
at rest."""

from rich.console import Console

from pipeline.cli.watch import line
from pipeline.records import Cause, SegmentChange, encode
from pipeline.runtime.ports import Record
from pipeline.up.picture import Picture
from pipeline.up.view import plain_line, screen


def test_at_rest_nothing_comes_and_nothing_waits() -> None:
    picture = Picture(resting={"ingest": 16, "unify": 32})
    for second in range(6):
        # In `events` ingest marks the time in each partition, once a second.
        picture.measure({"ingest": (7, 7), "unify": (100 + 8 * second, 104 + 8 * second)}, float(second))
    assert plain_line(picture, "ready", None) == "ready: 0 events/s, 0 profiles, waiting: ingest 0, unify 0"


def test_what_comes_is_counted_where_it_comes_in() -> None:
    picture = Picture(resting={"ingest": 16, "unify": 32})
    picture.profiles = {b"a"}
    for second in range(6):
        picture.measure({"ingest": (50 * second, 50 * second + 20), "unify": (1, 90)}, float(second))
    assert plain_line(picture, "ready", 2) == (
        "ready: 50 events/s, 1 profile, 2 webhook calls, waiting: ingest 20, unify 89"
    )
    assert picture.waiting() == {"ingest": 20, "unify": 89}


def test_a_membership_that_goes_on_across_a_merge_is_told_from_a_new_one() -> None:
    picture = Picture()
    shown = []
    for continues in ([], ["b-1"]):
        change = SegmentChange("p", "person", "cart", 1, "entered", 1, 1, 1, "merge", Cause(), False, [], continues)
        record = Record("segment-changes", 0, 0, b"p", encode(change), 1)
        picture.take(record, 0.0)
        shown.append(line(record))
    assert ["goes on" in one for one in shown] == [False, True]
    console = Console(width=160)
    with console.capture() as captured:
        console.print(screen(picture, [], "ready", None))
    assert [one.split()[-2] for one in captured.get().splitlines() if "cart" in one and "→" in one] == ["on", "merge"]
