"""Which distributions are installed in an environment, and the files of theirs that speak of a licence."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution as Installed
from pathlib import Path

from examples.licence_auditor import fingerprint
from examples.licence_auditor.models import Distribution, Header, LicenceFile, Metadata

METADATA_FILES = ("METADATA", "PKG-INFO")
LICENCE_NAME = re.compile(r"(un)?licen[cs]e|copying|notice|^(mit|bsd|apache|[al]?gpl)[^.]*$", re.IGNORECASE)
CODE_SUFFIXES = frozenset({".py", ".pyi", ".pyc", ".so", ".js", ".json", ".html", ".h", ".c", ".rs"})
# A licence text is at most 40 kB; what is longer is a list of a thousand components, and its head says what it is.
MAX_BYTES = 512 * 1024
# A wheel that bundles more components than this lists them in one file as well.
MAX_FILES = 64
_FIELD = re.compile(r"^(License-Expression|License-File|License|Classifier|Name|Version):[ \t]*(.*)$", re.IGNORECASE)
_FIELDS = {name.lower(): name for name in ("License-Expression", "License-File", "License", "Classifier", "Name", "Version")}
_DIRECTORY_NAME = re.compile(r"(?P<name>.+?)(-(?P<version>\d[^-]*))?(-py[\d.]+)?\.(dist|egg)-info$")


class EnvironmentUnreadable(Exception):
    """The environment cannot be listed. Names what was asked for and why it failed."""

    def __init__(self, environment: str, reason: str) -> None:
        self.environment, self.reason = environment, reason
        super().__init__(f"{environment!r} is no Python environment: {reason}; pass an interpreter or a site-packages directory")


def search_path(environment: str | None) -> list[str]:
    """The directories in which an environment keeps its distributions.

    Args:
        environment: an interpreter (it is asked), a site-packages directory, or ``None`` for the one running.

    Raises:
        EnvironmentUnreadable: there is no such thing, or the interpreter did not answer.
    """
    if environment is None:
        return [entry for entry in sys.path if entry and Path(entry).is_dir()]
    path = Path(environment)
    if path.is_dir():
        return [str(path.absolute())]
    if not path.is_file():
        raise EnvironmentUnreadable(environment, "no such file or directory")
    return _ask(environment)


def _ask(interpreter: str) -> list[str]:
    command = [interpreter, "-c", "import json, sys; print(json.dumps([p for p in sys.path if p]))"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        entries = json.loads(answer)
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise EnvironmentUnreadable(environment=interpreter, reason=str(exc)) from exc
    return [entry for entry in entries if Path(entry).is_dir()]


def distributions(path: Sequence[str]) -> list[Distribution]:
    """Every distribution found along the path, by name. The first of two copies counts, as it does for ``import``."""
    found: dict[str, Distribution] = {}
    for directory in _metadata_dirs(path):
        one = _distribution(directory)
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        first = found.setdefault(name, one)
        if first is not one and first.metadata_dir != one.metadata_dir:
            note = f"hides version {one.version} in {directory.parent}"
            found[name] = first.model_copy(update={"notes": (*first.notes, note)})
    return [found[name] for name in sorted(found)]


def _metadata_dirs(path: Sequence[str]) -> Iterator[Path]:
    for entry in dict.fromkeys(path):
        for pattern in ("*.dist-info", "*.egg-info"):
            yield from sorted(Path(entry).glob(pattern))


def _distribution(directory: Path) -> Distribution:
    metadata = read_metadata(str(directory))
    guess = _DIRECTORY_NAME.match(directory.name)
    name, version = metadata.values("Name"), metadata.values("Version")
    return Distribution(
        name=name[0].value if name else (guess["name"] if guess else directory.name),
        version=version[0].value if version else (guess["version"] if guess and guess["version"] else "unknown"),
        metadata_dir=str(directory.absolute()),
        notes=(metadata.problem,) if metadata.problem else (),
    )


def read_metadata(metadata_dir: str) -> Metadata:
    """The licence fields of a distribution's core metadata; what cannot be read is said in ``problem``."""
    directory = Path(metadata_dir)
    candidates = [directory] if directory.is_file() else [directory / name for name in METADATA_FILES]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        return Metadata(file=METADATA_FILES[0], problem=f"{directory.name} has no {' or '.join(METADATA_FILES)}")
    try:
        headers = parse_headers(file.read_bytes().decode("utf-8", "replace"))
    except OSError as exc:
        return Metadata(file=file.name, problem=f"{file.name} cannot be read: {exc.strerror}")
    missing = None if any(h.field == "Name" for h in headers) else f"{file.name} of {directory.name} names no distribution"
    return Metadata(file=file.name, headers=headers, problem=missing)


def parse_headers(text: str) -> tuple[Header, ...]:
    """The fields of interest in the head of a core metadata file, with their lines; a field may go on, indented."""
    headers: list[Header] = []
    current: Header | None = None
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line:
            break
        if line[0] in " \t":
            current = current and current.model_copy(update={"value": f"{current.value}\n{line.strip(' |')}"})
            headers = headers if current is None else [*headers[:-1], current]
            continue
        match = _FIELD.match(line)
        current = match and Header(field=_FIELDS[match[1].lower()], value=match[2].strip(), line=number)
        headers += [current] if current else []
    return tuple(headers)


def read_licence_files(metadata_dir: str, named: Sequence[str]) -> list[LicenceFile]:
    """Read and fingerprint every licence file of a distribution: those its metadata names, and those called like one."""
    files: list[LicenceFile] = []
    seen: set[str] = set()
    for path, label, bundled in _licence_paths(Path(metadata_dir), named):
        file = _read(path, label, bundled)
        if file.sha256 not in seen:
            files.append(file)
            seen.add(file.sha256)
        if len(files) == MAX_FILES:
            break
    missing = [name for name in named if not any(file.path.endswith(name) for file in files) and not _exists(Path(metadata_dir), name)]
    return files + [_unreadable(name, False, "named by the metadata, but not installed") for name in missing]


def _exists(directory: Path, name: str) -> bool:
    return any((root / name).is_file() for root in (directory / "licenses", directory))


def _licence_paths(directory: Path, named: Sequence[str]) -> Iterator[tuple[Path, str, bool]]:
    """Files, their label relative to the environment, and whether they belong to a bundled component; own files first."""
    own = [path for name in named for root in (directory / "licenses", directory) if (path := root / name).is_file()]
    own += sorted(path for path in _walk(directory) if LICENCE_NAME.search(path.name))
    for path in dict.fromkeys(own):
        inside = path.relative_to(directory).parts
        yield path, "/".join(inside), len(inside) - (inside[0] == "licenses") > 1
    for path in _installed_files(directory):
        if LICENCE_NAME.search(path.name) and path.suffix.lower() not in CODE_SUFFIXES and path.is_file():
            yield path, str(path.relative_to(directory.parent)), True


def _walk(directory: Path) -> Iterable[Path]:
    return (path for path in directory.rglob("*") if path.is_file()) if directory.is_dir() else ()


def _installed_files(directory: Path) -> Iterator[Path]:
    """What RECORD lists outside the metadata directory and inside the environment."""
    if not directory.is_dir():
        return
    for file in Installed.at(directory).files or ():
        path = Path(str(Installed.at(directory).locate_file(file)))
        if ".." not in file.parts and directory not in path.parents:
            yield path


def _read(path: Path, label: str, bundled: bool) -> LicenceFile:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES)
    except OSError as exc:
        return _unreadable(label, bundled, f"cannot be read: {exc.strerror}")
    text = content.decode("utf-8", "replace")
    return LicenceFile(
        path=label,
        bundled=bundled,
        sha256=hashlib.sha256(content).hexdigest(),
        lines=text.count("\n") + 1,
        matches=tuple(fingerprint.recognise(text, label)),
        problem=f"only the first {MAX_BYTES} bytes were read" if len(content) == MAX_BYTES else None,
    )


def _unreadable(label: str, bundled: bool, problem: str) -> LicenceFile:
    return LicenceFile(path=label, bundled=bundled, sha256=f"unread:{label}", lines=0, problem=problem)
