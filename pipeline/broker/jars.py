"""Apache Kafka's jars, fetched once by Maven into the cache folder."""

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import BrokerError

KAFKA_VERSION = "4.3.1"
SCALA_VERSION = "2.13"
SLF4J_VERSION = "1.7.36"  # of the slf4j-api that this Kafka depends on
JAVA_VERSION = 17
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_LAYOUT = 1  # raise when what stands in the folder changes
# Longer than a slow machine or a slow network takes; who waits for the lock of the cache waits as long.
_JAVA_WITHIN_S, _MAVEN_WITHIN_S = 60.0, 900.0

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headwater</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_{SCALA_VERSION}</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

_Ran = subprocess.CompletedProcess[str]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Distribution:
    """A Kafka that can be started: its jars, and the first metadata record of a freshly formatted log folder."""

    java: Path
    jars: Path
    bootstrap_checkpoint: Path

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line that runs a class of this Kafka."""
        return [str(self.java), *options, "-cp", f"{self.jars}/*", main_class, *arguments]


def find_java() -> Path:
    """The `java` of JAVA_HOME or of the PATH. BrokerError if there is none, one older than 17, or one that hangs."""
    home = os.environ.get("JAVA_HOME")
    candidates = [Path(home) / "bin" / "java"] if home else []
    on_path = shutil.which("java")
    candidates += [Path(on_path)] if on_path else []
    for java in candidates:
        if java.is_file():
            shown = _run("Java", [str(java), "-version"], _JAVA_WITHIN_S)
            match = re.search(r'version "(\d+)', shown.stderr)
            if match and int(match[1]) >= JAVA_VERSION:
                return java
            found = match[1] if match else "an unknown version"
            raise BrokerError(f"Java {JAVA_VERSION} or newer is needed; {java} is {found}.", str(java))
    raise BrokerError(f"Java {JAVA_VERSION} or newer was not found.", "JAVA_HOME and the PATH")


def distribution(cache_dir: Path) -> Distribution:
    """The Kafka of the cache folder, fetched if it is not there. Several processes may ask at once.

    BrokerError without Java, or without Maven where something has to be fetched.
    """
    java = find_java()
    folder = cache_dir / f"kafka-{KAFKA_VERSION}-{_LAYOUT}"
    found = Distribution(java, folder / "jars", folder / "bootstrap.checkpoint")
    if not folder.is_dir():
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with _locked(cache_dir / f"{folder.name}.lock"):
                if not folder.is_dir():  # nobody else fetched it meanwhile
                    _fetch(java, folder)
        except OSError as error:
            raise BrokerError(
                f"The cache folder cannot be used: {error.strerror or error}.",
                str(error.filename or cache_dir),
                "set HEADWATER_CACHE_DIR to a folder that can be written",
            ) from None
    return found


def _run(what: str, command: Sequence[str], within_s: float, folder: Path | None = None) -> _Ran:
    """Run a program to its end, whatever that is. BrokerError if it does not come to one in time."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, stdin=subprocess.DEVNULL, timeout=within_s
        )
    except subprocess.TimeoutExpired:
        raise BrokerError(
            f"{what} did not come to an end within {within_s:.0f} s.", command[0], "see whether it hangs by itself"
        ) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The lock file is left behind: removing it would let two processes lock two different files of that name.
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(java: Path, folder: Path) -> None:
    """Fill `folder`. It appears at once and whole, or not at all."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("Maven was not found; it fetches Apache Kafka the first time.", "the PATH")
    _log.info("fetching Apache Kafka %s by Maven, once (44 MB) …", KAFKA_VERSION)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as name:
        work = Path(name)
        fresh = work / "fresh"
        (work / "pom.xml").write_text(_POM)
        arguments = [
            "--batch-mode",
            "--quiet",
            f"--file={work / 'pom.xml'}",
            # A repository of its own: what is fetched does not depend on what the user's holds, or whether it can be
            # written.
            f"-Dmaven.repo.local={work / 'repository'}",
            _COPY,
            "-DincludeScope=runtime",
            f"-DoutputDirectory={fresh / 'jars'}",
        ]
        ran = _run("Maven", [maven, *arguments], _MAVEN_WITHIN_S, work)
        if ran.returncode != 0:
            lines = [line for line in ran.stdout.splitlines() if line.startswith("[ERROR]")]
            said = "\n".join(lines[:3]) or ran.stderr[-500:]
            raise BrokerError(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}: {said}", "mvn")
        kafka = Distribution(java, fresh / "jars", fresh / "bootstrap.checkpoint")
        _format(kafka, work)
        fresh.rename(folder)


def _format(kafka: Distribution, work: Path) -> None:
    """Have Kafka's own tool format a log folder, and keep what is the same in each: its first metadata record.

    It names the features of this version (transactions of the second generation among them); without it the
    broker falls back to older ones. A new node then needs a copy of the file instead of a second of Java.
    """
    (work / "format.properties").write_text(
        "process.roles=broker,controller\n"
        "node.id=1\n"
        "controller.quorum.voters=1@127.0.0.1:1\n"
        "controller.listener.names=CONTROLLER\n"
        "listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\n"
        f"log.dirs={work / 'formatted'}\n"
    )
    arguments = ("format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(work / "format.properties"))
    ran = _run("Apache Kafka's own tool", kafka.command("kafka.tools.StorageTool", *arguments), _JAVA_WITHIN_S)
    if ran.returncode != 0:
        raise BrokerError(f"Apache Kafka could not format a log folder: {ran.stdout[-300:]}{ran.stderr[-300:]}")
    shutil.copy(work / "formatted" / "bootstrap.checkpoint", kafka.bootstrap_checkpoint)
