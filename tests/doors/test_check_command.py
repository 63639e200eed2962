"""`headwater check`: definitions on their own, where no Kafka is."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import build
from pipeline.definitions.loader import load, load_text
from pipeline.definitions.log import _placing
from pipeline.definitions.segments import compile_definitions
from pipeline.errors import DefinitionError, HeadwaterError

BUYERS = "segment: buyers\nwhen: {performed: {event: Order Completed}}\n"
LAPSED = "segment: lapsed\nwhen: {not: {in_segment: buyers}}\n"
MAILS = "destination: mails\nkind: file\npath: out.jsonl\nsegments: [lapsed, lapsde]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    return tmp_path


def check(*paths: str) -> Result:
    said = CliRunner().invoke(build(), ["check", *paths])
    if isinstance(said.exception, HeadwaterError):
        raise said.exception
    return said


def test_what_is_a_whole_is_valid_and_what_nobody_defined_is_named(folder: Path) -> None:
    (folder / "segments").mkdir()
    (folder / "segments" / "buyers.yaml").write_text(BUYERS)
    (folder / "segments" / "lapsed.yaml").write_text(LAPSED)
    (folder / "mails.yaml").write_text(MAILS)
    said = check("segments", "mails.yaml")
    assert said.exit_code == 0
    valid, remark = said.stdout.splitlines()
    assert valid == "3 definitions, valid: segment 2, destination 1."
    assert "lapsde" in remark


def test_a_reference_to_what_is_not_among_them_is_refused_with_its_line(folder: Path) -> None:
    (folder / "lapsed.yaml").write_text(LAPSED)
    with pytest.raises(DefinitionError, match="there is no segment 'buyers'") as told:
        check("lapsed.yaml")
    assert (told.value.where, told.value.exit_code) == ("lapsed.yaml:2", 2)


@pytest.mark.parametrize("asked", ["{in_segment: buyers}", "{computed: {buyers: 1}}"])
def test_a_reference_in_what_an_account_asks_of_its_people_is_refused_by_the_segment_that_asks(
    folder: Path, asked: str
) -> None:
    (folder / "warm.yaml").write_text(f"segment: warm\nentity: account\nwhen:\n  members: {{match: {asked}}}\n")
    with pytest.raises(DefinitionError, match=r"The segment warm can't be used: members: .* 'buyers'") as told:
        check("warm.yaml")
    assert told.value.where == "warm.yaml:4"


def test_all_that_rules_ask_for_and_is_not_there_is_told_at_once(folder: Path) -> None:
    (folder / "a.yaml").write_text("segment: a\nwhen:\n  any:\n    - in_segment: buyers\n    - in_segment: buyers\n")
    (folder / "b.yaml").write_text(
        "computed: b\ncompute: {function: count, event: A}\n---\nsegment: b\nwhen: {computed: {spent: 1}}\n"
    )
    (folder / "c.yaml").write_text("segment: c\nwhen: {not: {in_segment: buyers}}\n")
    with pytest.raises(DefinitionError, match="3 things that rules ask for are not there") as told:
        check(".")
    places = [line.strip().partition(": ")[0] for line in told.value.where.splitlines() if line]
    assert places == ["a.yaml:4", "b.yaml:5", "c.yaml:2"]


def test_what_accounts_ask_of_people_and_is_not_there_is_told_with_the_rest(folder: Path) -> None:
    (folder / "warm.yaml").write_text(
        "segment: warm\nentity: account\nwhen: {members: {match: {in_segment: buyers}}}\n"
    )
    (folder / "lapsed.yaml").write_text(LAPSED)
    with pytest.raises(DefinitionError, match="2 things") as told:
        check(".")
    assert "warm.yaml:3: members: in_segment" in told.value.where and "lapsed.yaml:2: in_segment" in told.value.where


AROUND = (
    "segment: a\nwhen:\n  any:\n    - all: []\n    - in_segment: b\n---\nsegment: b\nwhen:\n  not:\n    in_segment: a\n"
)


def test_segments_that_lead_back_to_themselves_are_refused_with_the_line_of_a_reference(folder: Path) -> None:
    (folder / "around.yaml").write_text(AROUND)
    with pytest.raises(DefinitionError, match="leads back to itself: a → b → a") as told:
        check("around.yaml")
    assert told.value.where == "around.yaml:5"
    (folder / "accounts.yaml").write_text(
        "segment: big\nentity: account\nwhen:\n  members:\n    match: {in_segment: theirs}\n---\n"
        "segment: theirs\nwhen:\n  account:\n    in_segment: big\n"
    )
    with pytest.raises(DefinitionError, match="big → theirs → big") as told:
        check("accounts.yaml")
    assert told.value.where == "accounts.yaml:5"


def test_a_circle_through_what_is_in_force_already_is_refused_with_the_line_of_what_is_applied(folder: Path) -> None:
    (folder / "b.yaml").write_text(AROUND.partition("---\n")[2])
    in_force = load_text(AROUND)[0]
    written = load([folder / "b.yaml"])
    with pytest.raises(DefinitionError, match="a → b → a") as told, _placing(written):
        compile_definitions([(one.body, 1) for one in (in_force, *written)])
    assert told.value.where == str(folder / "b.yaml:4")


def test_nothing_to_check_is_a_mistake(folder: Path) -> None:
    with pytest.raises(HeadwaterError, match="what is to be checked"):
        check()


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    (folder / "a.yaml").write_text("segment: a\nwehn: {}\n")
    (folder / "b.yaml").write_text("segment: b\n")
    with pytest.raises(DefinitionError) as told:
        check(".")
    assert "a.yaml:" in told.value.where and "b.yaml:" in told.value.where


def test_a_path_that_is_not_there_is_no_mistake_of_a_definition(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="there is no such file or folder") as told:
        check("segmants")
    assert told.value.where == str(folder / "segmants")
    assert told.value.what_to_do == "name a file or a folder that is there"
    with pytest.raises(DefinitionError) as told:
        check("segmants", "mials.yaml")
    assert f"{folder / 'mials.yaml'}: there is no such file or folder" in told.value.where
