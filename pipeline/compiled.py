"""The hot rooms may run compiled: `make compile` puts a C form of them beside their sources (setup.py says which).

Python prefers a compiled module to the source beside it, and would go on running it after the source has changed. In a
checkout that must be loud.
"""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from pipeline.errors import HeadwaterError

_PACKAGE = Path(__file__).parent


def compiled_modules(package: Path = _PACKAGE) -> list[Path]:
    """The sources that have a compiled form beside them."""
    suffix = EXTENSION_SUFFIXES[0]
    return sorted(
        source
        for built in package.rglob(f"*{suffix}")
        if (source := built.with_name(built.name.removesuffix(suffix) + ".py")).exists()
    )


def refuse_what_is_stale(package: Path = _PACKAGE) -> None:
    """Raise HeadwaterError if this is a checkout and a source was changed after it was compiled."""
    checkout = package.parent
    libraries = list(package.glob(f"hot__mypyc{EXTENSION_SUFFIXES[0]}"))
    if not libraries or not (checkout / "pyproject.toml").exists():
        return
    compiled_at = libraries[0].stat().st_mtime
    for source in compiled_modules(package):
        if source.stat().st_mtime > compiled_at:
            raise HeadwaterError(
                f"{source.relative_to(checkout)} was changed after it was compiled, and the old code would run.",
                str(checkout),
                "run `make compile` to compile it anew, or `make pure` to run the sources",
            )
