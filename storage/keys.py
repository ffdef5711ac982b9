"""API keys: who may ask for what."""

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, insert, select, update
from ulid import ULID

from storage.api_tables import api_keys
from storage.clock import Now
from storage.database import Database
from storage.errors import InvalidSpec, NotFound
from storage.secret import new_secret

#: How every token begins, so that scanners for leaked secrets can know it.
PREFIX = "lm_"


class Scope(StrEnum):
    """What a key allows; each allows what the ones before it do."""

    READ = "read"  #: look at its owner's jobs
    SUBMIT = "submit"  #: enter, cancel and retry them
    ADMIN = "admin"  #: all of it for everybody's jobs, and the metrics

    def allows(self, wanted: "Scope") -> bool:
        order = list(Scope)
        return order.index(self) >= order.index(wanted)


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as the ledger knows it: never the token itself. Limits are None where none holds."""

    id: str
    owner: str
    scope: Scope
    hint: str
    #: Jobs of its owner that may wait at once.
    max_queued: int | None
    #: Pixels that a picture of a job may have.
    max_pixels: int | None
    #: Requests.
    max_per_minute: int | None
    created_at: float
    revoked_at: float | None


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key that was just made. Its token is nowhere else: it cannot be shown again."""

    key: Key
    token: str
    webhook_secret: str


class Keys:
    """The keys in the ledger's database; every method is one short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        owner: str,
        scope: Scope = Scope.SUBMIT,
        *,
        max_queued: int | None = None,
        max_pixels: int | None = None,
        max_per_minute: int | None = None,
    ) -> NewKey:
        """Make a key; raises InvalidSpec."""
        if not 1 <= len(owner) <= 100 or not owner.isprintable() or owner != owner.strip():
            raise InvalidSpec(f"owner: 1 to 100 printable characters (got {owner[:100]!r})")
        limits = {
            "max_queued": max_queued,
            "max_pixels": max_pixels,
            "max_per_minute": max_per_minute,
        }
        for name, value in limits.items():
            if value is not None and not 0 <= value < 2**31:
                raise InvalidSpec(f"{name}: 0 to {2**31 - 1} (got {value})")
        token = PREFIX + secrets.token_urlsafe(32)
        secret = new_secret()
        values = {
            "id": str(ULID()).lower(),
            "owner": owner,
            "scope": scope,
            "hash": _hash(token),
            "hint": token[:9],
            "webhook_secret": secret,
            "created_at": Now(),
            **limits,
        }
        with self._database.writing() as connection:
            row = connection.execute(insert(api_keys).values(values).returning(api_keys)).one()
        return NewKey(key=_key(row._mapping), token=token, webhook_secret=secret)

    def find(self, token: str) -> Key | None:
        """The key that a token opens, unless it was revoked."""
        query = select(api_keys).where(
            api_keys.c.hash == _hash(token), api_keys.c.revoked_at.is_(None)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _key(row._mapping)

    def all(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.id)).all()
        return [_key(row._mapping) for row in rows]

    def exist(self) -> bool:
        """Whether there is a key at all, or ever was."""
        with self._database.reading() as connection:
            return bool(connection.scalar(select(func.count()).select_from(api_keys)))

    def revoke(self, key_id: str) -> Key:
        """End a key by its id or its hint; raises NotFound. Repeating it changes nothing."""
        mine = (api_keys.c.id == key_id) | (api_keys.c.hint == key_id)
        with self._database.writing() as connection:
            ids = list(connection.scalars(select(api_keys.c.id).where(mine)))
            if len(ids) != 1:
                raise NotFound(f"key {key_id!r}: there is no one key with this id or beginning")
            row = connection.execute(
                update(api_keys)
                .where(api_keys.c.id == ids[0])
                .values(revoked_at=func.coalesce(api_keys.c.revoked_at, Now()))
                .returning(api_keys)
            ).one()
        return _key(row._mapping)

    def webhook_secrets(self, owner: str) -> list[str]:
        """What signs the webhooks of an owner's jobs, newest first."""
        query = select(api_keys.c.webhook_secret).where(
            api_keys.c.owner == owner, api_keys.c.revoked_at.is_(None)
        )
        with self._database.reading() as connection:
            return list(connection.scalars(query.order_by(api_keys.c.id.desc())))


def _hash(token: str) -> str:
    # A plain hash is enough, and quick: 256 random bits cannot be guessed from it. Slow hashes are
    # for what people choose. Found by its hash, no comparison can tell by its time how near one is.
    return hashlib.sha256(token.encode()).hexdigest()


def _key(row: Any) -> Key:
    names = Key.__dataclass_fields__
    return Key(**{**{name: row[name] for name in names}, "scope": Scope(row["scope"])})
