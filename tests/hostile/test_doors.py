"""Some of the odd requests; `make fuzz-doors` makes as many as one likes."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.hostile.asking import Answer, Asked
from tests.hostile.campaign import Doors, campaign, opened


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with opened(tmp_path_factory.mktemp("doors")) as found:
        yield found


@pytest.mark.parametrize("seed", [7, 8])
def test_every_route_answers_odd_requests_and_says_whose_fault_they_are(doors: Doors, seed: int) -> None:
    counted = asyncio.run(campaign(doors, 1_400, seed))
    every = [("pages", *one) for one in doors.routes_of_pages()] + [("api", *one) for one in doors.routes_of_api()]
    assert len(every) > 80 and all(counted[one] for one in every)
    answered = [one for one in every if counted[(*one, "as asked")]]
    assert len(answered) > 0.9 * len(every), "what is always refused at once is not tried"


def test_what_must_not_be_is_seen(doors: Doors) -> None:
    asked, html = Asked("GET", b"/segments"), [("content-type", "text/html"), ("content-security-policy", "x")]
    for wrong in (
        Answer(500, html, b""),
        Answer(200, html, b"token-of-viewer"),
        Answer(200, html, str(doors.folder).encode()),
        Answer(200, html, b"a" * 4_000_000),
        Answer(303, [*html, ("location", "//evil.example")], b""),
        Answer(200, [*html, ("set-cookie", "x=1")], b""),
        Answer(200, html[:1], b""),
    ):
        assert list(doors.judged_page(asked, wrong)), wrong[:2]
    assert not list(doors.judged_page(asked, Answer(200, html, b"token")))
    problem = [("content-type", "application/problem+json")]
    for wrong in (Answer(404, html, b"{}"), Answer(404, problem, b"{}"), Answer(404, problem, b'{"status": 403}')):
        assert list(doors.judged_call(asked, wrong))
