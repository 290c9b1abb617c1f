"""How are files kept in a bucket of an object store?

A PUT is whole and durable, so there is nothing to sync. Both clients, obstore here and delta-rs for the tables, read
the usual AWS_* variables themselves; what they say when something is wrong is turned into a sentence here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from leaven.errors import BadDefinition, LeavenError
from leaven.storage.copies import Copies
from leaven.storage.place import StoredFile

if TYPE_CHECKING:
    from obstore.store import S3Store

_RETRIES, _RETRY_SECONDS = 4, 20
_CHUNK = 8 * 2**20
_ALONE_SECONDS = 3_600.0
_CODE = re.compile(r"<Code>(\w+)</Code>")
_ANSWERED = re.compile(r"status code\W+(\d{3}[^:\n]*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_KEYS = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), AWS_REGION and what they may do there."
_REACH = "Check AWS_ENDPOINT_URL and AWS_REGION, and that the object store runs."


class BucketUnavailable(LeavenError, RuntimeError):
    """A bucket cannot be read or written now."""

    def __init__(self, url: str, why: str, mend: str) -> None:
        super().__init__(url, why, mend)
        self.url, self.why, self.mend = url, why, mend

    def __str__(self) -> str:
        return f"{self.url} cannot be used: {self.why}. {self.mend}"


def bucket_at(url: str, *, scratch: Path, megabytes: int, setting: str) -> Bucket:
    """Return the place that `s3://bucket/prefix` names; nothing is asked of it yet.

    Args:
        url: The URL.
        scratch: Folder for copies of its files.
        megabytes: How much room these may take.
        setting: What the URL was given as, for the error.
    Raises:
        BadDefinition: it is no such URL, or obstore is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise BadDefinition(setting, f"{url!r} is neither a folder nor a bucket",
                            "Give the path of a folder, or s3://bucket/prefix.")  # fmt: skip
    try:
        from obstore.store import S3Store
    except ModuleNotFoundError as error:
        raise BadDefinition(setting, f"what {url!r} needs is not installed",
                            'Install it: pip install "leaven[s3]".') from error  # fmt: skip
    retry: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)}
    store = S3Store(parts.netloc, retry_config=retry)
    prefix = "/".join(filter(None, parts.path.split("/")))
    return Bucket(store, parts.netloc, prefix, Copies(scratch / parts.netloc, megabytes))


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefix of a bucket; implements `leaven.storage.place.Place`."""

    store: S3Store
    name: str
    prefix: str
    copies: Copies

    def __str__(self) -> str:
        return self.uri

    @property
    def uri(self) -> str:
        """The URL."""
        return f"s3://{self.name}/{self.prefix}".removesuffix("/")

    @property
    def options(self) -> dict[str, str]:
        """How often delta-rs is to try; it reads the AWS_* variables itself."""
        return {"max_retries": str(_RETRIES), "retry_timeout": f"{_RETRY_SECONDS}s"}

    def at(self, *names: str) -> Bucket:
        """Return the prefix of that name under this one."""
        return Bucket(self.store, self.name, self._key("/".join(names)), self.copies)

    def folders(self) -> list[str]:
        """Return what comes next in the keys that have more to them."""
        names = (prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in self._listed()["common_prefixes"])
        return sorted(name for name in names if not name.startswith("."))

    def files(self) -> list[StoredFile]:
        """Return the objects right under this prefix."""
        found = [StoredFile(each["path"].rsplit("/", 1)[-1], each["size"], each["last_modified"].timestamp())
                 for each in self._listed()["objects"]]  # fmt: skip
        return sorted(found, key=lambda file: file.name)

    def _listed(self) -> Any:
        import obstore

        with self.said():
            return obstore.list_with_delimiter(self.store, self.prefix or None)

    def read(self, name: str) -> bytes:
        """Return an object's content."""
        import obstore

        with self.said():
            return bytes(obstore.get(self.store, self._key(name)).bytes())

    def ends(self, name: str, length: int) -> tuple[int, bytes, bytes] | None:
        """Return an object's size and its ends."""
        import obstore

        key = self._key(name)
        try:
            with self.said():
                size = obstore.head(self.store, key)["size"]
                if size == 0:
                    return 0, b"", b""
                spans = obstore.get_ranges(self.store, key, starts=[0, max(size - length, 0)],
                                           ends=[min(length, size), size])  # fmt: skip
        except FileNotFoundError:
            return None
        head, tail = (bytes(span) for span in spans)
        return size, head, tail

    def write(self, name: str, data: bytes) -> None:
        """Put an object."""
        import obstore

        with self.said():
            obstore.put(self.store, self._key(name), data)

    def remove(self, name: str) -> None:
        """Delete an object."""
        import obstore

        with self.said():
            obstore.delete(self.store, self._key(name))
        self.copies.forget(self._key(name))

    def sync(self, names: Iterable[str], *, above: int = 0) -> None:
        """Do nothing: a PUT that was answered is durable."""

    def local(self, names: Mapping[str, int]) -> list[str]:
        """Return the paths of copies of these objects, after fetching those that are not here yet."""
        with self.said():
            sizes = {self._key(name): size for name, size in names.items()}
            return [str(path) for path in self.copies.paths(sizes, self._fetch)]

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold an object that only one can make; what a process that died has left counts for an hour."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        key = self._key(".alone")
        with self.said():
            for file in self.files():
                if file.name == ".alone" and time.time() - file.modified > _ALONE_SECONDS:
                    obstore.delete(self.store, key)
            try:
                obstore.put(self.store, key, b"", mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                free = False
            else:
                free = True
        try:
            yield free
        finally:
            if free:
                with self.said():
                    obstore.delete(self.store, key)

    def _fetch(self, key: str, path: Path) -> None:
        import obstore

        with path.open("wb") as file:
            for chunk in obstore.get(self.store, key).stream(min_chunk_size=_CHUNK):
                file.write(chunk)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @contextmanager
    def said(self) -> Iterator[None]:
        """Turn what obstore and delta-rs say of the store into our own words; what is merely not there stays so.

        Raises:
            BucketUnavailable: the store did not answer, or refused.
        """
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            text = _COLOUR.sub("", str(error))
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
                raise
            raise BucketUnavailable(self.uri, *_reason(self.name, text)) from error


def _reason(bucket: str, text: str) -> tuple[str, str]:
    """Why the store did not do what was asked, and what to do about it."""
    code, answered = _CODE.search(text), _ANSWERED.search(text)
    if "NoSuchBucket" in text:
        return f"there is no bucket {bucket!r}", "Create it, or name another one; its region is AWS_REGION."
    if "169.254." in text:
        return "no credentials were given", _KEYS
    if code or answered:
        said = code[1] if code else answered[1].strip() if answered else ""
        return f"the object store refused with {said}", _KEYS
    if "builder error" in text:
        return (
            "its address is plain HTTP, which must be allowed",
            "Set AWS_ALLOW_HTTP=true, or use https://.",
        )
    return f"the object store did not answer ({_last_words(text)})", _REACH


def _last_words(text: str) -> str:
    lines = [line.strip(" ↳\t") for line in text.split("Debug source")[0].splitlines()]
    return next((line for line in reversed(lines) if line), "no reason was given").split(" - ")[-1]
