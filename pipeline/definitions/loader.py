"""Files and folders of definitions into validated documents; all that is wrong is told at once, with its line."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.definitions.documents import MAX_BYTES, Document, DocumentError, Mark, json_as_yaml, read_documents
from pipeline.definitions.documents import Path as Steps
from pipeline.definitions.kinds import KINDS_BY_KEY, Mistake, body_of, mistakes_in, name_in
from pipeline.errors import DefinitionError
from pipeline.records.definitions import Kind

SUFFIXES = (".yaml", ".yml", ".json")
_SETTINGS_FILE = "headwater.yaml"
MOST_TOLD = 100
"""Of many problems the first are told, and how many more there are."""
_LONGEST_LINE = 1_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (a path inside the document may be empty; line 0: no document), and what."""

    file: str
    line: int
    column: int
    field: str
    what: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.place}: {field}{self.what}"

    @property
    def place(self) -> str:
        """The file, with line and column where there are any."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class InvalidDefinitionsError(DefinitionError):
    """Some definitions are not valid; `problems` has all that is wrong."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        if len(problems) == 1:
            super().__init__(
                (f"{first.field}: {first.what}" if first.field else first.what)[:_LONGEST_LINE],
                first.place,
                "correct it; docs/segments.md and docs/definitions.md have the language"
                if first.line
                else "name a file or a folder that is there",
            )
        else:
            super().__init__(
                f"{len(problems)} things in the definitions are wrong.",
                "\n    ".join(("", *told(problems))),
                "correct them; docs/segments.md and docs/definitions.md have the language",
            )
        self.problems = problems


def told(problems: Sequence[Problem | str]) -> list[str]:
    """The first problems, a line each."""
    lines = [str(one)[:_LONGEST_LINE] for one in problems[:MOST_TOLD]]
    return [*lines, f"… and {len(problems) - MOST_TOLD:,} more"] if len(problems) > MOST_TOLD else lines


@dataclass(frozen=True, slots=True)
class Written:
    """One valid definition as somebody wrote it. `body` is the whole document, as JSON values."""

    kind: Kind
    name: str
    body: dict[str, Any]
    file: str = ""
    line: int = 0
    marks: Mapping[Steps, Mark] = field(default_factory=dict, repr=False, compare=False)

    def place_of(self, name: str = "") -> str:
        """FILE:LINE of where a rule asks for this segment or computed trait; else of the document."""
        for steps, (line, _) in self.marks.items():
            asks = steps[-2:] == ("computed", name) or (steps[-1:] == ("in_segment",) and self._at(steps) == name)
            if name and asks:
                return f"{self.file}:{line}"
        return f"{self.file}:{self.line}"

    def _at(self, steps: Steps) -> Any:
        found: Any = self.body
        for step in steps:
            found = found[step]
        return found

    @property
    def key(self) -> str:
        """`kind/name`, as generations list it."""
        return f"{self.kind}/{self.name}"


def load(paths: Iterable[Path]) -> list[Written]:
    """The definitions in files and folders (YAML and JSON; folders are searched to the bottom, hidden files apart).

    Raises InvalidDefinitionsError with everything that is wrong, also when there is nothing to read.
    """
    problems: list[Problem] = []
    written: dict[str, Written] = {}
    files = list(_files(paths, problems))
    for file in files:
        for found in _read(file, problems):
            first = written.setdefault(found.key, found)
            if first is not found:
                what = f"the {found.kind} {found.name} stands already in {first.file}:{first.line}"
                problems.append(Problem(found.file, found.line, 1, "", what))
    if not problems and not written:
        named = ", ".join(map(str, paths))
        why = "what is there is empty" if files else f"no file that ends in {', '.join(SUFFIXES)}"
        problems.append(Problem(named, 1, 1, "", f"no definitions here: {why}"))
    if problems:
        raise InvalidDefinitionsError(problems)
    return list(written.values())


def load_text(text: str, name: str = "<text>") -> list[Written]:
    """The definitions in a text, YAML or JSON. Raises InvalidDefinitionsError."""
    problems: list[Problem] = []
    written = list(_of_text(json_as_yaml(text) if _is_json(text) else text, name, problems))
    if problems:
        raise InvalidDefinitionsError(problems)
    return written


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _files(paths: Iterable[Path], problems: list[Problem]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
            found = [
                p
                for p in inside
                if p.name != _SETTINGS_FILE and not any(part.startswith(".") for part in p.relative_to(path).parts)
            ]
        elif path.is_file():
            found = [path]
        else:
            problems.append(Problem(str(path.absolute()), 0, 0, "", "there is no such file or folder"))
            continue
        for file in found:
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _read(file: Path, problems: list[Problem]) -> Iterator[Written]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        problems.append(Problem(str(file), 1, 1, "", f"it cannot be read: {error.strerror}"))
        return
    if len(raw) > MAX_BYTES:
        problems.append(Problem(str(file), 1, 1, "", f"it is larger than {MAX_BYTES:,} bytes"))
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.append(Problem(str(file), line, 1, "", "it is not UTF-8"))
        return
    yield from _of_text(json_as_yaml(text) if file.suffix == ".json" else text, str(file), problems)


def _of_text(text: str, file: str, problems: list[Problem]) -> Iterator[Written]:
    try:
        documents = read_documents(text)
    except DocumentError as error:
        problems.append(Problem(file, *error.mark, "", error.what))
        return
    for document in documents:
        found = _validated(document, file, problems)
        if found is not None:
            yield found


def _validated(document: Document, file: str, problems: list[Problem]) -> Written | None:
    value, start = document.value, document.mark_of(())
    keys = [key for key in KINDS_BY_KEY if isinstance(value, dict) and key in value]
    if len(keys) != 1:
        problems.append(Problem(file, *start, "", _which_kind(value, keys)))
        return None
    kind = KINDS_BY_KEY[keys[0]]
    mistakes = mistakes_in(kind, value)
    told = set()
    for mistake in mistakes:
        problem = _problem(document, file, mistake)
        if (problem.line, problem.what) not in told:
            told.add((problem.line, problem.what))
            problems.append(problem)
    if mistakes:
        return None
    return Written(kind, name_in(kind, value), body_of(kind, value), file, start[0], document.marks)


def _which_kind(value: Any, keys: list[str]) -> str:
    """Why nobody can tell which kind of definition this is."""
    if keys:
        return f"a definition is of one kind; here stand {' and '.join(f'`{key}:`' for key in keys)}"
    for key in value if isinstance(value, dict) else ():
        for near in get_close_matches(key, KINDS_BY_KEY, 1, 0.8):
            return f"there is no kind of definition `{key}:`; did you mean `{near}:`?"
    return f"a definition has one of the keys {', '.join(f'`{key}:`' for key in KINDS_BY_KEY)}"


def _problem(document: Document, file: str, mistake: Mistake) -> Problem:
    field = ""
    path: tuple[Any, ...] = ()
    for step in mistake.location:
        if (*path, step) in document.marks:
            path = (*path, step)
            field += f"[{step}]" if isinstance(step, int) else f".{step}" if field else str(step)
    return Problem(file, *document.mark_of(path), field, mistake.what)
