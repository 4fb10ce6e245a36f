"""What the doctor makes of what it finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentkit.cli import checks, host
from agentkit.cli.checks import Worker
from agentkit.cli.host import Holder, Mount
from agentkit.ports.records import Finding


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_a_python_newer_than_the_tested_ones_is_noted() -> None:
    assert [checks.python(version).level for version in ((3, 11), (3, 13), (3, 14))] == ["ok", "ok", "note"]


def test_the_unrelated_distribution_of_our_name_is_found_with_the_way_out() -> None:
    assert checks.namesake(None) == []
    (found,) = checks.namesake("0.0.4")
    assert found.level == "fail"
    assert "pip uninstall agentkit" in found.do


@pytest.mark.parametrize(("version", "level"), [("3.40.1", "warn"), ("3.51.2", "warn"), ("3.51.3", "ok"), ("3.52.0", "ok"), ("4.0", "ok")])
def test_sqlite_before_the_wal_reset_fix_is_warned_of(version: str, level: str) -> None:
    assert checks.sqlite(version).level == level


MOUNTS = [Mount("/", "ext4"), Mount("/data", "nfs4"), Mount("/data/local", "xfs"), Mount("/mnt/my disk", "cifs")]


@pytest.mark.parametrize(
    ("path", "level"),
    [("/srv/a.db", "ok"), ("/data/a.db", "fail"), ("/data/local/a.db", "ok"), ("/database/a.db", "ok"), ("/mnt/my disk/a.db", "fail")],
)
def test_a_store_on_a_network_file_system_is_refused_by_its_innermost_mount(path: str, level: str) -> None:
    assert checks.file_system(path, MOUNTS).level == level


def test_without_a_mount_table_nothing_is_claimed() -> None:
    assert checks.file_system("/srv/a.db", []).level == "note"


@pytest.mark.parametrize(("free", "level"), [(5 * 10**9, "ok"), (500 * 10**6, "warn"), (10**6, "fail")])
def test_a_full_disk_is_seen_before_it_is_full(free: int, level: str) -> None:
    assert checks.disk(free, "/srv").level == level


def test_a_stopped_process_that_has_the_store_open_is_named_with_both_ways_out() -> None:
    found = checks.stopped([Holder(17, "python", "S"), Holder(18, "python", "T")])
    assert len(found) == 1
    assert "18" in found[0].says
    assert "kill -CONT 18" in found[0].do
    assert "kill -9 18" in found[0].do


def test_work_that_no_live_worker_serves_is_named_by_kind() -> None:
    found = checks.workers(
        [Worker("w1", frozenset({"embed@1"}), "pod-a:7", beating=True), Worker("w2", frozenset({"review@4"}), "pod-b:9", beating=False)],
        {"review@4": 3, "embed@1": 2, "idle@1": 0},
        looked_s=5.0,
    )
    assert levels(found) == ["ok", "note", "fail"]
    assert found[-1].says == "no live worker serves review@4: 3 wait for one"
    assert found[-1].do.endswith("--only review@4")


def test_no_worker_and_no_work_is_no_fault() -> None:
    assert levels(checks.workers([], {}, looked_s=5.0)) == ["note"]
    assert levels(checks.workers([], {"review@4": 1}, looked_s=5.0)) == ["fail"]


def test_dead_letters_are_counted_by_kind() -> None:
    assert [f.says for f in checks.dead_letters({"review@4": 2, "embed@1": 0})] == ["2 dead letters of review@4"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///agents.db", "sqlite:///agents.db"),
        ("postgresql://ann:s3cret@db/agents", "postgresql://ann:***@db/agents"),
        ("redis://:s3cret@cache", "redis://:***@cache"),
        (8, "8"),
    ],
)
def test_the_password_of_a_url_is_never_printed(url: object, said: str) -> None:
    assert checks.shown(url) == said


def test_each_setting_says_where_it_comes_from() -> None:
    found = checks.settings_in_force(
        {"state": "redis://h", "lease_s": 30.0, "grace_s": 20.0}, {"lease_s": 30.0}, {"lease_s": 10.0, "grace_s": 20.0}
    )
    assert [(s.name, s.source) for s in found] == [("state", "argument"), ("lease_s", "AGENTKIT_LEASE_S"), ("grace_s", "default")]


def test_the_mount_table_is_read_with_its_escapes(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("/dev/sda1 / ext4 rw 0 0\n//nas/a /mnt/my\\040disk cifs rw 0 0\nbroken\n")
    assert host.mounts(table) == [Mount("/", "ext4"), Mount("/mnt/my disk", "cifs")]
    assert host.mounts(tmp_path / "none") == []


def test_free_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert host.free_bytes(tmp_path / "no" / "such" / "agents.db") > 0


def test_a_stopped_process_that_holds_the_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "agents.db-wal"
    program = "import sys; f = open(sys.argv[1], 'w'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        found = host.holders(tmp_path / "agents.db")
        child.send_signal(signal.SIGCONT)
        child.kill()
    assert [(holder.pid, holder.state) for holder in found] == [(child.pid, "T")]
    assert checks.stopped(found)


def test_processes_that_are_gone_or_not_ours_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "17" / "fd").mkdir(parents=True)
    (tmp_path / "18").mkdir()
    (tmp_path / "self").mkdir()
    assert host.holders(tmp_path / "agents.db", tmp_path) == []
    assert host.holders(tmp_path / "agents.db", tmp_path / "none") == []
