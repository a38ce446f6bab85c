import errno
import hashlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from distalign.errors import UserError
from distalign.store.files import (
    TIMESTAMP,
    atomic_directory,
    atomic_file,
    atomic_write_bytes,
    atomic_write_json,
    read_json,
    sha256_tree,
)


def names(path):
    return sorted(item.name for item in path.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "a.bin"
    atomic_write_bytes(path, b"one")
    atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.bin"]


def test_failure_inside_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    atomic_write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_file(path) as handle:
        handle.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_directory_replaces_as_a_whole(tmp_path):
    path = tmp_path / "adapter"
    with atomic_directory(path) as place:
        (place / "old.txt").write_text("1")
    with pytest.raises(RuntimeError), atomic_directory(path) as place:
        (place / "half.txt").write_text("2")
        raise RuntimeError
    assert names(path) == ["old.txt"]
    with atomic_directory(path) as place:
        (place / "new.txt").write_text("3")
    assert names(path) == ["new.txt"]
    assert names(tmp_path) == ["adapter"]


@pytest.mark.faults
@pytest.mark.injects("disk full")
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "quota")])
def test_disk_full_is_explained(tmp_path, fault):
    with pytest.raises(UserError, match=r"a\.bin: the disk is full .*free some space"), atomic_file(tmp_path / "a.bin"):
        raise fault
    assert names(tmp_path) == []


@pytest.mark.faults
@pytest.mark.injects("disk full")
def test_disk_full_told_by_a_library_in_its_own_words(tmp_path):
    with pytest.raises(UserError, match="the disk is full"), atomic_directory(tmp_path / "adapter"):
        raise RuntimeError('Io(Os { code: 28, message: "No space left on device" })')
    assert names(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="bug"), atomic_file(tmp_path / "a.bin"):
        raise RuntimeError("bug")


def test_something_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="in the way"):
        atomic_write_bytes(tmp_path / "file" / "a.bin", b"")
    (tmp_path / "place").mkdir()
    with pytest.raises(UserError, match="in the way"):
        atomic_write_bytes(tmp_path / "place", b"")


@pytest.mark.faults
@pytest.mark.injects("SIGKILL while a file is written")
def test_killed_while_writing_leaves_no_file(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from distalign.store.files import atomic_file
        with atomic_file(Path(sys.argv[1])) as handle:
            handle.write(b"x" * 100_000)
            handle.flush()
            print("half", flush=True)
            time.sleep(60)
    """)
    path = tmp_path / "a.bin"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    atomic_write_bytes(path, b"next attempt")
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.faults
@pytest.mark.injects("SIGKILL while a file is written")
def test_killed_at_any_moment_the_file_is_old_or_new(tmp_path):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from distalign.store.files import atomic_write_bytes
        print("go", flush=True)
        while True:
            for letter in (b"a", b"b"):
                atomic_write_bytes(Path(sys.argv[1]), letter * 300_000)
    """)
    path = tmp_path / "a.bin"
    for attempt in range(5):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.01 + 0.007 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if path.exists():
            assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)
    assert path.exists()


def test_json_round_trip_and_errors(tmp_path):
    path = tmp_path / "a.json"
    value = {"name": "Größe", "shares": [0.5, 0.25], "nothing": None}
    atomic_write_json(path, value)
    assert read_json(path) == value
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.json: not a complete JSON file"):
            read_json(path)
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(path, float("nan"))


def test_tree_hash_leaves_time_stamps_out(tmp_path):
    (tmp_path / "-a").write_text("1")  # sorted before the stamp
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_text("2")
    without = sha256_tree(tmp_path)
    counted = [("-a", b"1"), (TIMESTAMP, b""), ("b/c", b"2")]
    lines = "".join(f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in counted)
    stamped = hashlib.sha256(lines.encode()).hexdigest()
    assert sha256_tree(tmp_path, stamped=True) == stamped != without
    (tmp_path / TIMESTAMP).touch()
    (tmp_path / "b" / TIMESTAMP).touch()
    assert sha256_tree(tmp_path) == without
    assert sha256_tree(tmp_path, stamped=True) == stamped


def test_tree_hash_sees_names_and_contents(tmp_path):
    place = tmp_path / "tree"
    place.mkdir()
    (place / "a").write_text("1")
    hashes = {sha256_tree(place)}
    (place / "a").write_text("2")
    hashes.add(sha256_tree(place))
    (place / "a").rename(place / "b")
    hashes.add(sha256_tree(place))
    assert len(hashes) == 3
