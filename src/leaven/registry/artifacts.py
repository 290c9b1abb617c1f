"""Where are a version's files, and are they what was registered?

An artifact is a zip file named by the SHA-256 of its bytes. The same files always make the same bytes, and every
reading recomputes the digest, so a file that was damaged or exchanged is never loaded. Nothing in it is executed.

A file is mapped, not read: processes that load one artifact share the pages that the system holds of it, and a part of
it is a view that copies nothing. That is safe because a kept file is only ever replaced, never written into.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from hashlib import file_digest, sha256
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO, RawIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from leaven.errors import LeavenError
from leaven.storage.place import Folder

MAX_BYTES = 2 * 1024**3  # of one artifact
MAX_FILES = 1_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a member; it ends with the lengths of the name and of what is extra
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest moment that a zip file can name


class ArtifactMissing(LeavenError, LookupError):
    """No artifact of this digest is in the store."""

    def __init__(self, digest: str, folder: str) -> None:
        super().__init__(digest, folder)
        self.digest, self.folder = digest, folder

    def __str__(self) -> str:
        return f"no artifact {self.digest!r} in {self.folder}. Restore it from a backup, or train the version again."


class ArtifactDamaged(LeavenError, RuntimeError):
    """An artifact's bytes are not the ones that were registered."""

    def __init__(self, digest: str, path: str, why: str) -> None:
        super().__init__(digest, path, why)
        self.digest, self.path, self.why = digest, path, why

    def __str__(self) -> str:
        return (
            f"artifact {self.digest[:12]} at {self.path} is damaged: {self.why}. "
            "It was not loaded; restore the file from a backup, or train the version again."
        )


class ArtifactRefused(LeavenError, ValueError):
    """Files cannot be kept as an artifact."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"file {self.name!r} cannot be part of an artifact: {self.why}. Let the learner save it otherwise."


class ArtifactStore:
    """Artifacts in a folder, by digest. Safe for several processes at once: a file appears whole or not at all."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    def path(self, digest: str) -> Path:
        """Return where the artifact of this digest is, or would be.

        Raises:
            ArtifactMissing: the text is no digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise ArtifactMissing(digest, str(self._folder))
        return self._folder / digest[:2] / f"{digest}.zip"

    def put(self, files: Mapping[str, bytes | memoryview]) -> str:
        """Keep `files` (content by relative name) and return their digest; once it returns, they survive a power cut.

        Raises:
            ArtifactRefused: there are no files, too many or too large ones, or a name is not plain and relative.
        """
        data = packed(files)
        digest = sha256(data).hexdigest()
        path = self.path(digest)
        if not (path.exists() and _digest_of(path) == digest):
            Folder(self._folder).write(f"{digest[:2]}/{digest}.zip", data)
        return digest

    def get(self, digest: str) -> dict[str, memoryview]:
        """Return the files of an artifact, by name, after checking that they are what was kept.

        They are read-only views of the mapped file, which stays mapped for as long as one of them lives.

        Raises:
            ArtifactMissing: there is no such artifact.
            ArtifactDamaged: its bytes have another digest, or are no artifact.
        """
        path = self.path(digest)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ArtifactDamaged(digest, str(path), f"it is larger than {MAX_BYTES} bytes")
            data = _mapped(path)
        except FileNotFoundError as error:
            raise ArtifactMissing(digest, str(self._folder)) from error
        if sha256(data).hexdigest() != digest:
            raise ArtifactDamaged(digest, str(path), "its content has another digest")
        try:
            return unpacked(data)
        except (zipfile.BadZipFile, ArtifactRefused) as error:
            raise ArtifactDamaged(digest, str(path), str(error)) from error


def packed(files: Mapping[str, bytes | memoryview]) -> bytes:
    """Return `files` as one zip file; equal files give equal bytes.

    Raises:
        ArtifactRefused: see `ArtifactStore.put`.
    """
    _check(list(files), sum(len(content) for content in files.values()))
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.create_system = 3  # otherwise it names the machine's system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def unpacked(data: bytes | mmap.mmap) -> dict[str, memoryview]:
    """Return the files in a zip file that `packed` made, as read-only views of `data`.

    Raises:
        ArtifactRefused: a name, a size or a way of packing that `packed` does not use.
        zipfile.BadZipFile: it is no zip file.
    """
    whole = memoryview(data).toreadonly()
    with zipfile.ZipFile(cast(IO[bytes], _Reading(whole))) as archive:
        entries = archive.infolist()
    _check([entry.filename for entry in entries], sum(entry.file_size for entry in entries))
    for entry in entries:
        # Packed members could unfold to any size; stored ones cannot, as long as they do not share bytes.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ArtifactRefused(entry.filename, "it is compressed")
    if sum(entry.file_size for entry in entries) > len(data):
        raise ArtifactRefused(entries[0].filename, "its members overlap")
    return {entry.filename: _member(whole, entry) for entry in entries}


class _Reading(RawIOBase):
    """Bytes as a file, for who reads files; nothing is copied but what is read."""

    def __init__(self, whole: memoryview) -> None:
        super().__init__()
        self._whole, self._at = whole, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: len(self._whole)}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def readinto(self, target: Any) -> int:
        piece = self._whole[self._at : self._at + len(target)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _member(whole: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of a stored member; its own header, which has no fixed length, stands in front of them."""
    start = entry.header_offset
    if not 0 <= start <= len(whole) - _LOCAL_HEADER.size or bytes(whole[start : start + 4]) != b"PK\x03\x04":
        raise ArtifactRefused(entry.filename, "it is not where the directory says")
    start += _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack_from(whole, start))
    content = whole[start : start + entry.file_size]
    if len(content) != entry.file_size:
        raise ArtifactRefused(entry.filename, "it is cut off")
    return content


def _mapped(path: Path) -> bytes | mmap.mmap:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""  # nothing can be mapped of it
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _check(names: list[str], total: int) -> None:
    if not names:
        raise ArtifactRefused("", "there are no files")
    if len(names) > MAX_FILES or len(set(names)) != len(names):
        raise ArtifactRefused(names[-1], f"there are more than {MAX_FILES} files, or two of one name")
    if total > MAX_BYTES:
        raise ArtifactRefused(names[0], f"together the files have {total} bytes, and {MAX_BYTES} are allowed")
    for name in names:
        plain = PurePosixPath(name)
        if not name or plain.is_absolute() or ".." in plain.parts or str(plain) != name or not name.isprintable():
            raise ArtifactRefused(name, "the name must be a plain relative path")
        if "\\" in name or ":" in name:
            raise ArtifactRefused(name, "the name must hold no backslash and no colon")
