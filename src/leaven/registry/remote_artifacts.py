"""How are artifacts kept in a bucket, and read as fast as from a folder?

What is put goes to the bucket; what is got is copied from there once, by its digest, and read from the copy. So a
gateway that starts while the object store is away still loads what it has loaded before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from leaven.registry.artifacts import MAX_BYTES, ArtifactDamaged, ArtifactMissing, ArtifactStore
from leaven.storage.place import Folder, Place, folder_of, place_at

UNUSED_SECONDS = 30 * 86_400.0  # after which a copy goes


def artifacts_at(location: str, *, copies: Path) -> ArtifactStore:
    """Return the artifacts at `location`: a folder, or `s3://bucket/prefix`.

    Args:
        location: A path or a URL.
        copies: Folder for copies of what is in a bucket.
    Raises:
        BadDefinition: it is a URL of another kind, or what a bucket needs is not installed.
    """
    folder = folder_of(location)
    if folder is not None:
        return ArtifactStore(folder)
    place = place_at(location, setting="LEAVEN_ARTIFACTS", scratch=copies, megabytes=0)
    return RemoteArtifacts(place, copies)


class RemoteArtifacts(ArtifactStore):
    """Artifacts in a place elsewhere, by digest, with local copies of those that were used."""

    def __init__(self, place: Place, copies: Path, *, wall: Callable[[], float] = time.time) -> None:
        super().__init__(copies)
        self._place, self._copies, self._wall = place, Folder(copies), wall

    def put(self, files: Any) -> str:
        """Keep `files` (content by relative name) and return their digest; once it returns, the bucket has them.

        Raises:
            ArtifactRefused: see `ArtifactStore.put`.
            BucketUnavailable: the bucket cannot be written now; nothing was kept there.
        """
        digest = super().put(files)
        path = self.path(digest)
        there = self._place.ends(_name(digest), 1)
        if there is None or there[0] != path.stat().st_size:
            self._place.write(_name(digest), path.read_bytes())
        return digest

    def get(self, digest: str) -> dict[str, Any]:
        """Return the files of an artifact, by name, after checking that they are what was kept.

        Raises:
            ArtifactMissing: there is no such artifact.
            ArtifactDamaged: the bytes in the bucket have another digest, or are no artifact.
            BucketUnavailable: there is no copy, and the bucket cannot be read now.
        """
        path = self.path(digest)
        if path.exists():
            with suppress(ArtifactDamaged, ArtifactMissing):  # a copy that is no good is made anew
                found = super().get(digest)
                os.utime(path, (self._wall(),) * 2)
                return found
        self._copy(digest)
        return super().get(digest)

    def _copy(self, digest: str) -> None:
        name, where = _name(digest), f"{self._place.uri}/{_name(digest)}"
        there = self._place.ends(name, 1)
        if there is None:
            raise ArtifactMissing(digest, self._place.uri)
        if there[0] > MAX_BYTES:
            raise ArtifactDamaged(digest, where, f"it is larger than {MAX_BYTES} bytes")
        data = self._place.read(name)
        if sha256(data).hexdigest() != digest:
            raise ArtifactDamaged(digest, where, "its content has another digest")
        self._copies.write(name, data)
        self._forget_unused()

    def _forget_unused(self) -> None:
        for folder in self._copies.folders():
            for file in self._copies.at(folder).files():
                if self._wall() - file.modified > UNUSED_SECONDS:
                    self._copies.at(folder).remove(file.name)


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest}.zip"
