"""Files of definitions: what is read, and what is said, with the line, about what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.definitions.documents import DocumentError, read_documents
from pipeline.definitions.durations import duration_ms
from pipeline.definitions.export import as_yaml
from pipeline.definitions.loader import InvalidDefinitionsError, load, load_text, told

FILE = "destination: {name}\nkind: file\npath: /tmp/x\n"

SCALARS: list[tuple[str, Any]] = [
    ("yes", "yes"),
    ("on", "on"),
    ("12:30", "12:30"),
    ("2026-03-01", "2026-03-01"),
    ("0x1f", "0x1f"),
    ("1_000", "1_000"),
    ("010", "010"),
    (".inf", ".inf"),
    ("true", True),
    ("null", None),
    ("~", None),
    ("", None),
    ("3", 3),
    ("-3", -3),
    ("3.50", 3.5),
    ("1e3", 1000.0),
    ("'3'", "3"),
    ('"true"', "true"),
    ("'True'", "True"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars(text: str, value: Any) -> None:
    [document] = read_documents(f"a: {text}\n")
    assert document.value == {"a": value} and type(document.value["a"]) is type(value)


UNREADABLE = [
    ("a: [1", "not YAML", 2),
    ("a: 1\nb: 2\na: 3\n", "stands twice", 3),
    ("a: !!python/object:os.system x\n", "tag", 1),
    ("a: 1\nb: !Rule {c: 1}\n", "the tag !Rule", 2),
    ("a: [!!set [b]]\n", "tag", 1),
    ("a:\n\tb: 1\n", "begins with a tab; indent it by spaces", 2),
    ("a: é\nb: é\0\n", "control characters|special characters", 2),
    ("a: &x 1\nb:\n  <<: {c: 1}\n", "merge keys", 3),
    ("a: &x [*x]\n", "nested too deeply", 1),
    ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply", 1),
    ("a: 99999999999999999999\n", "too large", 1),
    ("a: 1e999\n", "too large", 1),
    ("b: 1\na: .5\n", "write it like 0.5", 2),
    ("a: -5.\n", "write it like 0.5", 1),
    ("b: 1\na: True\n", "write true, or put it in quotes", 2),
    ("a: [FALSE]\n", "write false, or put it in quotes", 1),
    ("a: Null\n", "write null, or put it in quotes", 1),
    ("? [a]\n: 1\n", "key must be a text", 1),
]


@pytest.mark.parametrize(("text", "what", "line"), UNREADABLE, ids=[case[1] for case in UNREADABLE])
def test_unreadable(text: str, what: str, line: int) -> None:
    with pytest.raises(DocumentError, match=what) as caught:
        read_documents(text)
    assert caught.value.mark[0] == line
    assert "\n" not in caught.value.what


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DocumentError, match="too large"):
        read_documents("\n".join(lines))


def test_a_bomb_of_aliases_is_refused_however_many_documents_it_is_spread_over() -> None:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 5)]
    with pytest.raises(DocumentError, match="too large"):
        read_documents("\n".join([*lines, *(["- [*a4, *a4]"] * 20)]))


def test_what_stands_deep_counts_for_more() -> None:
    wide, deep = "[" + "1," * 50_000 + "]", 80
    assert read_documents(f"a: {wide}")
    with pytest.raises(DocumentError, match="too large"):
        read_documents("a: " + "[" * deep + wide + "]" * deep)


def test_of_many_problems_the_first_are_told() -> None:
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text("".join(f"- {{segment: {'b' * 900}, {'c' * 900}{number}: 1}}\n" for number in range(1_000)))
    assert len(caught.value.problems) > 1_000
    assert len(str(caught.value)) < 120_000 and "more" in str(caught.value)
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(f"segment: a\nwhen: {{all: []}}\n{'b' * 9_000}: 1\n")
    assert len(str(caught.value)) < 3_000


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: key != "<<"), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(values)
def test_what_is_exported_reads_back(value: Any) -> None:
    body = {"segment": "x", "value": value}
    [document] = read_documents(as_yaml(body))
    assert document.value == body


@pytest.mark.parametrize("text", ["1.5", "-3", "true", "True", "NULL", "~", "", ".5", "-5.", "+.5e3"])
def test_a_text_that_others_take_for_something_else_is_exported_in_quotes(text: str) -> None:
    [document] = read_documents(as_yaml({"segment": text}))
    assert document.value == {"segment": text}


def test_files_folders_and_json(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a.yaml").write_text(FILE.format(name="a") + "---\n" + FILE.format(name="b") + "---\n")
    (tmp_path / "deep" / "c.json").write_text(
        '[\n\t{"destination": "c", "kind": "file", "path": "\\ud83e\\udd8a\\\\ud83e"}\n]'
    )
    (tmp_path / ".hidden" / "d.yaml").write_text("nonsense: [")
    (tmp_path / "headwater.yaml").write_text("partitions: 4\n")
    (tmp_path / "notes.txt").write_text("nonsense: [")
    found = load([tmp_path, tmp_path / "a.yaml"])
    assert [each.key for each in found] == ["destination/a", "destination/b", "destination/c"]
    assert [each.line for each in found] == [1, 5, 2]
    assert found[2].body["path"] == "🦊\\ud83e"


WRONG = [
    ("kind: file\n", 1, "one of the keys"),
    ("- 3\n", 1, "one of the keys"),
    ("segment: a\ndestination: b\n", 1, "of one kind; here stand `segment:` and `destination:`"),
    ("# mine\nsegmet: a\n", 2, "did you mean `segment:`?"),
    (
        "destination: a\nkind: carrier_pigeon\n",
        2,
        "no destination kind 'carrier_pigeon'; known: file, http, kafka, postgres, redis, tracking, webhook",
    ),
    ("destination: a\nkind: file\n", 1, "needs the key `path`"),
    ("destination: a\nkind: file\npath: x\nurl: y\n", 4, "no key `url` for the kind file"),
    ("destination: A b\nkind: file\npath: x\n", 1, "a name begins with a small letter"),
    ("destination: ''\nkind: file\npath: x\n", 1, "a name is missing"),
    ("segment: Käufer & Co.\nwhen: {all: []}\n", 1, "at most 100; write kaufer_co"),
    ("segment: '7'\nwhen: {all: []}\n", 1, "at most 100"),
    ("destination: a\nkind: file\npath: x\nmax_age: soon\n", 4, "not a length of time"),
    ("destination: a\nkind: file\npath: x\ndelivery:\n  attempts: 0\n", 5, "a number of at least 1 is expected"),
    ("destination: a\nkind: file\npath: x\nchanges: [enter]\n", 4, "entered"),
    ("destination: a\nkind: file\npath: x\nprofiles: [totals]\n", 4, "name sections"),
    ("destination: a\nkind: webhook\nurl: https://x.io\nsecret: whsec_hunter2\n", 4, "never stands in a definition"),
    ("destination: a\nkind: webhook\nurl: http://x.io\nunsigned: true\n", 1, "in the clear"),
    ("identity:\n  quarantine_after: 0\n", 2, "a number of at least 1 is expected"),
    ("identity: {}\nnamespaces: {}\n", 2, "below `identity:`"),
]


@pytest.mark.parametrize(("text", "line", "what"), WRONG, ids=[case[2] for case in WRONG])
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(text, "x.yaml")
    [problem] = caught.value.problems
    assert problem.line == line and what in problem.what
    assert "hunter2" not in str(caught.value)
    assert f"x.yaml:{line}:" in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("destination: a\nkind: nope\n---\ndestination: b\nkind: file\n")
    (tmp_path / "b.yaml").write_bytes(b"ok: 1\n\xff\n")
    (tmp_path / "c.yaml").write_text(FILE.format(name="c"))
    (tmp_path / "d.yaml").write_text("# again\n" + FILE.format(name="c"))
    with pytest.raises(InvalidDefinitionsError) as caught:
        load([tmp_path, tmp_path / "absent"])
    told = [(Path(problem.file).name, problem.line) for problem in caught.value.problems]
    assert told == [("absent", 0), ("a.yaml", 2), ("a.yaml", 4), ("b.yaml", 2), ("d.yaml", 2)]
    assert f"{tmp_path}/c.yaml:1" in str(caught.value)


def test_an_empty_folder_is_a_mistake_and_so_is_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinitionsError, match=r"no definitions here: no file that ends in \.yaml"):
        load([tmp_path])
    for held in ("", "# nothing yet\n", "---\n---\n", "\ufeff"):
        (tmp_path / "a.yaml").write_text(held, encoding="utf-8")
        with pytest.raises(InvalidDefinitionsError, match="no definitions here: what is there is empty"):
            load([tmp_path / "a.yaml"])


def test_files_as_other_editors_write_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + FILE.format(name="a").replace("\n", "\r\n").encode())
    assert [each.body["path"] for each in load([tmp_path])] == ["/tmp/x"]


MISTYPED = [
    ("segment: a\nwhen: {trait: {plan: {equal: x}}}", "did you mean `equals`?"),
    ("segment: a\nwhen: {performed: {event: X, withn: 7d}}", "did you mean `within`?"),
    ("segment: a\nwhen: {performed: {event: X, count: {atleast: 7}}}", "did you mean `at_least`?"),
    ("segment: a\nwhen: {performed: {event: X, count: {equal: 7}}}", "keys here are at_least, at_most, more_than"),
    (
        "segment: a\nwhen: {performed: {event: X, where: {properties.x: {start_with: a}}}}",
        "did you mean `starts_with`?",
    ),
    ("segment: a\nwhen: {all: [{any: [{not: {performed: {event: X, were: {}}}}]}]}", "did you mean `where`?"),
    ("segment: a\nwhen: {sequence: {steps: [{event: A}, {event: B, withn: 3s}]}}", "did you mean `within`?"),
    ("contract: a\nevents: {A: {propertis: {}}}", "did you mean `properties`?"),
    ("destination: a\nkind: file\npath: x\nsegmnts: [b]", "did you mean `segments`?"),
    ("destination: a\nkind: file\npath: x\npurpose: [b]", "did you mean `purposes`?"),
    ("destination: a\nkind: webhook\nurl: https://x.io\nunsigned: true\nheader: {}", "did you mean `headers`?"),
    ("identity: {namespaces: {email: {limits: 3}}}", "did you mean `limit`?"),
    ("identity: {quarantine_aftr: 3}", "did you mean `quarantine_after`?"),
    ("consent: default\npurpose: {}", "did you mean `purposes`?"),
    ("contract: a\nevents: {A: {shema: {}}}", "did you mean `schema`?"),
]


@pytest.mark.parametrize(("text", "what"), MISTYPED, ids=[case[0].partition("\n")[2] or "rules" for case in MISTYPED])
def test_who_mistyped_a_key_is_told_which_there_are(text: str, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(text)
    [problem] = caught.value.problems
    assert "there is no key" in problem.what and what in problem.what


def test_keys_are_listed_where_they_are_few() -> None:
    with pytest.raises(InvalidDefinitionsError, match="there is no key `zzz` for the kind file") as caught:
        load_text("destination: a\nkind: file\npath: x\nzzz: 1")
    assert "keys here are" not in str(caught.value), "two dozen of them help nobody"


DURATIONS = [("500ms", 500), ("90s", 90_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("1y", 31_536_000_000)]


@pytest.mark.parametrize(("text", "expected"), DURATIONS)
def test_durations(text: str, expected: int) -> None:
    assert duration_ms(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "-7d", "1.5h", 7, None, "٣d"])
def test_no_durations(text: Any) -> None:
    with pytest.raises(ValueError, match="like 30s"):
        duration_ms(text)


def test_the_namespace_of_accounts_is_refused_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "identity.yaml"
    file.write_text("identity:\n  namespaces:\n    email: {limit: 5}\n    account:\n      limit: 1\n")
    with pytest.raises(InvalidDefinitionsError) as caught:
        load([file])
    [problem] = caught.value.problems
    assert (problem.file, problem.line) == (str(file), 4)
    assert "'account' names accounts" in problem.what


BLANK = [
    "segment: s\nwhen: {performed: {event: A, within: }}",
    "segment: s\nwhen: {performed: {event: A, where: }}",
    "segment: s\nwhen: {all: [{performed: {event: A, within: }}]}",
    "segment: s\nwhen: {performed: {event: A, where: {any: }}}",
    "segment: s\nwhen: {performed: {event: A, count: {at_least: 1, at_most: }}}",
    "segment: s\nvalid_until:\nwhen: {all: []}",
    "computed: c\ncompute: {function: count, event: A, calendar: }",
    "destination: d\nkind: file\npath: /tmp/x\nsegments:",
    "contract: c\nsources:\nevents: {A: }",
]


@pytest.mark.parametrize("text", BLANK)
def test_a_key_without_a_value_does_not_mean_the_most_there_is(text: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match="has no value: write one, or leave it out"):
        load_text(text)


def test_a_value_may_be_nothing_where_it_is_somebodys_own() -> None:
    load_text("identity:")
    load_text("contract: c\nevents: {A: , B: {properties: {a: {enum: [null, x]}, b: {default: null}}}}")
    load_text("destination: d\nkind: http\nurl: https://x.example\nbody: {a: null}")


@pytest.mark.parametrize(
    "between",
    ["{from: 0001-01-01, time_zone: Europe/Berlin}", "{to: '9999-12-31T23:59:59', time_zone: America/New_York}"],
)
def test_an_instant_that_no_calendar_has_in_utc_is_a_mistake_with_a_place(between: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match="is before the year 1 or after 9999") as caught:
        load_text(f"segment: s\nwhen:\n  performed: {{event: A, between: {between}}}")
    assert caught.value.problems[0].line == 3


@pytest.mark.parametrize("step", ["drop: ", "derive: ", "cast: ", "call: "])
def test_a_step_of_a_cleaning_without_a_value_is_a_mistake(step: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match="has no value: say what it is to be done to"):
        load_text(f"cleaning: c\nsteps:\n  - {step}")


@pytest.mark.parametrize(
    ("when", "told_once"),
    [
        ("{performed: {event: [Cart Viewed, '']}}", ["when.performed.event[1]: it is empty"]),
        ("{performed: {event: ''}}", ["when.performed.event: it is empty"]),
        ("{performed: {event: 3}}", ["when.performed.event: a text or a list is expected here"]),
        ("{trait: {plan: {in: 3}}}", ["when.trait.plan.in: a list is expected here"]),
        ("{performed: {event: A, count: {at_least: many}}}", [".count.at_least: a number is expected here"]),
        (
            "{performed: {event: A, where: {properties.x: {greater_than: [1]}}}}",
            [".greater_than: a number or a text or a mapping is expected here"],
        ),
        (
            "{performed: {event: [''], where: {properties.x: {equals: []}}}}",
            ["event[0]: it is empty", "x.equals: true or false or a number or a text or a mapping is expected here"],
        ),
        ("{consent: {purpose: ads, is: maybe}}", ["consent.is: 'granted', 'denied' or 'unknown' is expected here"]),
        ("{sequence: {steps: [{event: A}]}}", ["when.sequence.steps: at least 2 must stand here, not 1"]),
        (
            "{performed: {event: A, calendar: {unit: day, last: 0}}}",
            ["when.performed.calendar.last: a number of at least 1 is expected here"],
        ),
        (
            "{performed: {event: A, calendar: {unit: day, last: 1001}}}",
            ["when.performed.calendar.last: a number of at most 1,000 is expected here"],
        ),
        ("{trait: {}}", ["when.trait: at least 1 must stand here, not 0"]),
        (
            f"{{performed: {{event: A, where: {{any: [{', '.join(['{properties.a: 1}'] * 101)}]}}}}}}",
            ["when.performed.where.any: at most 100 may stand here, not 101"],
        ),
        ("{all: [{performed: {event: 3}}, {trait: 4}]}", ["event: a text or a list is", "a mapping is expected here"]),
    ],
)
def test_a_value_of_no_type_that_is_meant_is_told_once_and_in_words(when: str, told_once: list[str]) -> None:
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(f"segment: a\nwhen: {when}\n")
    said = told(caught.value.problems)
    assert len(said) == len(told_once), said
    for line, expected in zip(said, told_once, strict=True):
        assert expected in line and "Input should" not in line and "after validation" not in line, said


def test_a_name_that_reads_as_something_else_is_told_to_stand_in_quotes() -> None:
    with pytest.raises(InvalidDefinitionsError, match='at most 100; write "true"'):
        load_text("segment: true\nwhen: {all: []}\n")


def test_what_json_lets_stand_in_a_text_is_read_as_it_is(tmp_path: Path) -> None:
    text = "a\x7f\x85b\u2028c\u2029\ufeff\uffff\U0001d4b3"
    body = {"segment": "odd", "when": {"trait": {"name": text}}}
    for name, ascii_only in (("plain.json", False), ("escaped.json", True)):
        (tmp_path / name).write_text(json.dumps(body, ensure_ascii=ascii_only), encoding="utf-8")
        [found] = load([tmp_path / name])
        assert found.body == body


def test_what_is_wrong_in_a_long_where_is_told_with_the_line_of_each_path() -> None:
    text = """segment: a
when:
  performed:
    event: Order Completed
    where:
      properties.total: {greater_than: 3}
      total: {greater_than: 3}
      properties.city: Berlin
      properties.at: {after: now-30d}
"""
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(text)
    assert {(one.line, one.what.partition(";")[0]) for one in caught.value.problems} == {
        (7, "'total' is no path"),
        (9, "properties.at: a `where` can't depend on the clock"),
    }


def test_what_is_wrong_in_a_long_rule_is_told_with_the_line_of_the_key_it_is_about() -> None:
    text = """segment: a
when:
  all:
    - performed:
        event: Order Completed
        between:
          time_zone: Europe/Berlin
          from: 2026-02-30
          to: yesterday
    - performed:
        event: Order Completed
      trait: {plan: free}
    - performed:
        event: Order Completed
      performd:
        event: Cart Viewed
      nto: {all: []}
    - trait:
        plan:
          starts_with: f
          equals: null
"""
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(text)
    assert {(one.line, one.what.partition(";")[0]) for one in caught.value.problems} == {
        (8, "'2026-02-30' is no instant"),
        (9, "'yesterday' is no instant"),
        (12, "a rule has one key"),
        (15, "there is no rule `performd`"),
        (17, "there is no rule `nto`"),
        (21, "equals has no value"),
    }


@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_text_may_be_json_as_every_library_writes_it(ascii_only: bool) -> None:
    body = {"segment": "s", "description": "🦊 \u007f\u2028\t", "when": {"performed": {"event": "🦊"}}}
    for text in (json.dumps(body, ensure_ascii=ascii_only, indent="\t"), json.dumps([body], ensure_ascii=ascii_only)):
        assert [one.body for one in load_text(text)] == [body]


def test_a_text_in_braces_that_is_no_json_is_yaml() -> None:
    assert load_text("{segment: s, description: 'a\tb', when: {all: []}}")[0].body["description"] == "a\tb"
