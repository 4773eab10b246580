"""Files that are written whole or not at all, one hash of many of them, and the folder that travels with the project."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

PROBE = 1 << 20  # bytes that are written to see whether a disk is full


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Write a file whole or not at all.

    The content goes to a temporary file in the same folder, is forced to the disk, and then takes the place of the
    old file in one step: a reader, a crash or a full disk meets the old file or the new one, never half of one.

    Parameters
    ----------
    path : str or Path
        Where the file shall stand; folders above it are created.
    write : callable
        Called with the path of the temporary file, which exists and is empty; writes the content there.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full; the old file is as it was and no temporary file is left.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "new" / "x.txt", lambda part: part.write_text("whole")).read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False) as file:
        part = Path(file.name)
    try:
        with _told_by_system(part, path):
            write(part)
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())  # a temporary file is private, the finished one is not
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _told_by_system(part: Path, path: Path) -> Iterator[None]:
    """Raise what the operating system says of a disk, with the name of the file, whatever a library makes of it."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise
    except Exception as error:
        try:
            with open(part, "ab") as file:
                file.write(bytes(PROBE))
                file.flush()
                os.fsync(file.fileno())
        except OSError as why:
            raise OSError(why.errno, why.strerror, str(path)) from error
        raise


def digest(*parts: object) -> str:
    """Return one hash of strings, bytes and paths (of files, by content).

    Examples
    --------
    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part if isinstance(part, bytes) else str(part).encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def tree(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files below ``folder`` in a fixed order, without caches."""
    paths = folder.rglob(pattern) if folder.is_dir() else []
    return sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts
                  and not path.name.endswith((".pyc", ".part")))


def embedded_folder() -> Path:
    """Return the folder that travels with the project: ``data/`` of a checkout, or its copy inside the wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent
    return checkout / "data" if (checkout / "pyproject.toml").is_file() else package / "embedded"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
