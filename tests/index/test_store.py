"""The store: whole batches, one owner, a schema version, clear refusals."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from index import store as store_module
from index import tables
from index.errors import StoreError
from index.store import Store


def test_pending_writes_are_read_at_once_and_durable_only_after_commit(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(b"ea", b"1")
        store.put(b"ec", b"3")
        store.commit()
        store.put(b"eb", b"2")
        store.delete(b"ec")
        assert store.get(b"eb") == b"2" and store.get(b"ec") is None
        assert store.get_many([b"ea", b"eb", b"ec", b"ed"]) == [b"1", b"2", None, None]
        assert list(store.scan(b"e")) == [(b"ea", b"1"), (b"eb", b"2")]
        assert list(store.scan(b"e", b"b")) == [(b"eb", b"2")]
        store.rollback()
        assert list(store.scan(b"e")) == [(b"ea", b"1"), (b"ec", b"3")]
        store.put(b"ez", b"lost")
    with Store(tmp_path) as store:
        assert list(store.scan(b"e")) == [(b"ea", b"1"), (b"ec", b"3")]


def test_beside_the_owner_it_is_seen_as_it_is_at_some_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is opened the owner may have its logs written to tables and deleted."""
    opened = store_module._open
    with Store(tmp_path) as owner:
        owner.put(b"ea", b"1")
        owner.commit()
        times = 0

        def busy(*arguments: Any) -> Any:
            nonlocal times
            times += 1
            if times < 3:
                owner.put(b"e%d" % times, b"new")
                owner.commit()
                owner._db.flush()
            return opened(*arguments)

        monkeypatch.setattr(store_module, "_open", busy)
        before = sorted(path.name for path in tmp_path.rglob("*"))
        with Store(tmp_path, read_only=True) as seen:
            assert times == 3
            owner.delete(b"ea")
            owner.commit()
            owner._db.compact_range(None, None)
            assert list(seen.scan(b"e")) == [(b"e1", b"new"), (b"e2", b"new"), (b"ea", b"1")]
        assert "rocksdict-config.json" in before
        config = tmp_path / "rocksdb" / "rocksdict-config.json"
        config.unlink()
        Store(tmp_path, read_only=True).close()
        assert not config.exists()  # nothing is written
        with pytest.raises(StoreError, match="cannot be opened"):
            Store(tmp_path / "nowhere", read_only=True)
        assert not (tmp_path / "nowhere").exists()


def test_damage_is_told_beside_the_owner_too(tmp_path: Path) -> None:
    with Store(tmp_path) as owner:
        owner.put(b"ea", b"1")
        owner.commit()
    (tmp_path / "rocksdb" / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path, read_only=True)


def test_what_was_committed_survives_sigkill(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from index.store import Store\n"
        "store = Store(Path(sys.argv[1])); store.put(b'ea', b'1'); store.commit(); store.put(b'eb', b'2')\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    with Store(tmp_path) as store:
        assert list(store.scan(b"e")) == [(b"ea", b"1")]


def test_a_second_owner_is_refused_and_told_the_first(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_another_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(tables.META + b"schema", b"999")
        store.commit()
    with pytest.raises(StoreError, match=r"schema 999.*delete the directory to rebuild"):
        Store(tmp_path)


def test_a_corrupt_store_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put(b"ea", b"1")
        store.commit()
    (tmp_path / "rocksdb" / "CURRENT").write_bytes(b"MANIFEST-nonsense\n")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_a_flipped_bit_is_never_the_end_of_a_scan(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(5_000):
            store.put(b"e%08d" % number, os.urandom(50))
        store.commit()
    with Store(tmp_path):
        pass  # what was in the log is in a table now
    table = max((tmp_path / "rocksdb").glob("*.sst"), key=lambda file: file.stat().st_size)
    raw = bytearray(table.read_bytes())
    raw[len(raw) // 2] ^= 1
    table.write_bytes(raw)
    with Store(tmp_path) as store:
        for read in (
            lambda: list(store.scan(b"e")),
            lambda: store.get_many([b"e%08d" % number for number in range(5_000)]),
            lambda: [store.get(b"e%08d" % number) for number in range(5_000)],
        ):
            with pytest.raises(StoreError, match=r"cannot read: .*delete the directory"):
                read()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match="give a writable one"):
        Store(tmp_path / "state")
