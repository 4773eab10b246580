"""The files of Flickr8k: a folder, or the two published archives, read under the same names."""

import io
import zipfile
import zlib
from functools import lru_cache
from os import getpid
from pathlib import Path

from crossexplain.checks import InputError
from crossexplain.data.photos import PhotoError
from crossexplain.data.store import MissingSource

TOKENS = "Flickr8k.token.txt"
TEXT_ARCHIVE, IMAGE_ARCHIVE = "Flickr8k_text.zip", "Flickr8k_Dataset.zip"
LARGEST = 64 << 20  # bytes of a file in an archive that are unpacked into memory
TEXT_FOLDERS, IMAGE_FOLDERS = (".", "Flickr8k_text"), ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset")


class CaptionError(InputError):
    """A file of captions, of a split or of judgements is not as it should be; the message says where and what to do."""


class Files:
    """The files of a folder, or of the archives in it, under the same names."""

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise MissingSource(f"there is no folder {folder}; name the one that holds {TOKENS} or {TEXT_ARCHIVE}.")
        self.images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
        self.members = {} if self.images else _members(folder / IMAGE_ARCHIVE)
        if not self.images and not self.members:
            raise MissingSource(f"{folder} holds no images: expected a folder {' or '.join(IMAGE_FOLDERS)}, or the archive "
                                f"{IMAGE_ARCHIVE}.")

    def text(self, name: str) -> bytes:
        """Return the content of a text file."""
        for place in TEXT_FOLDERS:
            if (path := self.folder / place / name).is_file():
                return path.read_bytes()
        archive = self.folder / TEXT_ARCHIVE
        if name in (members := _members(archive)):
            return _from_archive(archive, members[name].filename)
        raise MissingSource(f"{self.folder} lacks {name}, and there is no {TEXT_ARCHIVE} that holds it; "
                            "place the file there.")

    def open(self, image: str) -> Path | io.BytesIO:
        """Return what :func:`crossexplain.data.photos.read` reads an image from."""
        if self.images:
            return self.images / image
        stream = io.BytesIO(_from_archive(self.folder / IMAGE_ARCHIVE, self.members[image].filename))
        stream.name = image
        return stream

    def lacks(self, image: str) -> str | None:
        """Return why an image cannot be read, without opening it, or None."""
        if self.images:
            path = self.images / image
            size = path.stat().st_size if path.is_file() else None
        else:
            size = self.members[image].file_size if image in self.members else None
        return "absent" if size is None else None if size else "empty (0 bytes)"

    def fingerprint(self, image: str) -> str:
        """Return size and checksum of an image's file; an archive knows them already."""
        if self.images:
            content = (self.images / image).read_bytes()
            return f"{len(content)} {zlib.crc32(content):08x}"
        return f"{self.members[image].file_size} {self.members[image].CRC:08x}"


@lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    # Each process opens it anew: two that share an open file would move each other's place in it.
    return zipfile.ZipFile(path)


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files in an archive by their plain names; nothing if there is no archive."""
    if not path.is_file():
        return {}
    try:
        listed = _archive(path, getpid()).infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CaptionError(f"{path} is no whole zip file ({error}); copy or fetch it again.") from error
    # Mac OS adds files of its own, in a folder of that name.
    return {Path(info.filename).name: info for info in listed
            if not info.is_dir() and not info.filename.startswith("__MACOSX/")}


def _from_archive(path: Path, member: str) -> bytes:
    size = _archive(path, getpid()).getinfo(member).file_size
    if size > LARGEST:
        raise CaptionError(f"{member} in {path.name} takes {size:,} bytes when unpacked, at most {LARGEST:,} are read: no file "
                           "of this data set is that large; fetch the archive again.")
    try:
        return _archive(path, getpid()).read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if Path(member).suffix == ".txt":
            raise CaptionError(f"{member} in {path} cannot be unpacked ({error}); copy the archive again.") from error
        raise PhotoError(f"{Path(member).name} cannot be unpacked from {path.name} ({error}); "
                                "copy or fetch the archive again.") from error


def lines_of(content: bytes, name: str) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, with their numbers."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CaptionError(f"{name} is UTF-16, expected UTF-8; save it again as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise CaptionError(f"{name}, line {number}: the byte 0x{content[error.start]:02x} is not UTF-8; save the file "
                           "again as UTF-8.") from error
    # split("\n"): a caption may hold a character that splitlines takes for the end of a line
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        raise CaptionError(f"{name} is empty, expected at least one line; fetch or copy the file again.")
    return lines
