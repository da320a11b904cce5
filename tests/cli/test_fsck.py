"""The books against what the providers list."""

from __future__ import annotations

import sqlite3

from gpucloud_local import api
from gpucloud_sim import api as sim
from tests.harness.cli import Cli, Finished
from tests.harness.waiting import eventually

SIM = {"GPUCLOUD_SIM_SCRIPT": "boot=0s"}


def launch(cli: Cli, name: str = "x", *more: str) -> str:
    words = ("launch", "--name", name, "--no-push", "--yes", "--json", "--gpu", "H100", *more)
    return str(cli.ok(*words, env=SIM).json["clusters"][0]["nodes"][0]["token"])


def kinds(done: Finished) -> dict[str, str]:
    return {finding["token"]: finding["kind"] for finding in done.json["findings"]}


def fsck(cli: Cli, *words: str) -> Finished:
    return cli("fsck", "--json", *words, env=SIM)


def lose_books(cli: Cli) -> None:
    for part in cli.data.glob("gpucloud.db*"):
        part.unlink()


def test_what_runs_is_shown_with_its_price(cli: Cli) -> None:
    token = launch(cli)
    done = fsck(cli)
    assert (done.code, kinds(done)) == (0, {token: "running"})
    assert float(done.json["findings"][0]["usd_per_hour"]) > 0
    assert cli("fsck").out.startswith("running\tsim\t")


def test_what_vanished_at_the_provider_closes_the_books(cli: Cli) -> None:
    token = launch(cli)
    api.destroy(cli.data / "providers" / "sim" / "instances" / token)
    done = eventually(lambda: d if kinds(d := fsck(cli)) != {token: "running"} else None)
    assert done is not None
    assert (done.code, kinds(done)) == (0, {token: "vanished"})
    assert cli.ok("ps").out == ""
    assert kinds(fsck(cli)) == {}


def test_other_peoples_instances_are_shown_as_theirs_and_left_alone(cli: Cli) -> None:
    token = launch(cli)
    lose_books(cli)
    (cli.data / "owner").write_text("somebody-else\n")
    done = fsck(cli, "--fix", "--yes")
    assert (done.code, kinds(done)) == (0, {token: "not-ours"})
    assert kinds(fsck(cli, "--rebuild")) == {token: "not-ours"}


def test_lost_books_are_rebuilt_from_the_tags(cli: Cli) -> None:
    tokens = {launch(cli, "x", "--nodes", "2"), launch(cli, "y")}
    tokens |= {node["token"] for c in cli.ok("ps", "--json").json["clusters"] for node in c["nodes"]}
    lose_books(cli)
    assert fsck(cli).code == 6
    done = fsck(cli, "--rebuild")
    assert (done.code, set(kinds(done).values()), set(kinds(done))) == (0, {"running"}, tokens)
    clusters = {c["name"]: c for c in cli.ok("ps", "--json").json["clusters"]}
    assert {name: len(c["nodes"]) for name, c in clusters.items()} == {"x": 2, "y": 1}
    assert cli.ok("exec", "y", "--", "echo back", env=SIM).out == "back\n"
    cli.ok("down", "--all", "--yes", env=SIM)
    assert kinds(fsck(cli)) == {}


def test_rebuilt_books_know_the_lease_from_the_tag(cli: Cli) -> None:
    launch(cli, "x", "--max-duration", "2h")
    before = cli.ok("ps", "--json").json["clusters"][0]["nodes"][0]["expires_at"]
    lose_books(cli)
    assert fsck(cli, "--rebuild").code == 0
    assert cli.ok("ps", "--json").json["clusters"][0]["nodes"][0]["expires_at"] == before


def test_a_disk_that_was_left_behind_is_found_and_deleted(cli: Cli) -> None:
    words = ("launch", "--name", "x", "--provider", "sim:boot=0s,leak=1", "--no-push", "--yes", "--json")
    token = cli.ok(*words).json["clusters"][0]["nodes"][0]["token"]
    sim.Api(cli.data / "providers" / "sim", None).delete(token)
    eventually(lambda: "vanished" not in (d := fsck(cli).out) and "should-be-gone" in d)
    done = fsck(cli)
    assert (done.code, kinds(done)) == (6, {token: "should-be-gone"})
    (left,) = done.json["findings"]
    assert left["detail"] == "a disk, left behind"
    assert float(left["usd_per_hour"]) > 0
    assert fsck(cli, "--fix").code == 6, "nobody agreed"
    assert fsck(cli, "--fix", "--dry-run", "--yes").code == 6
    assert fsck(cli, "--fix", "--yes").code == 0
    assert kinds(fsck(cli)) == {}


def test_a_damaged_database_is_kept_and_nothing_is_rented_until_it_is_rebuilt(cli: Cli) -> None:
    token = launch(cli)
    for part in cli.data.glob("gpucloud.db-*"):
        part.unlink()
    (cli.data / "gpucloud.db").write_bytes(b"not a database at all" * 500)
    done = cli("ps")
    assert done.code == 1
    assert "was set aside" in done.err
    assert "gpucloud fsck --rebuild" in done.err
    aside = list(cli.data.glob("gpucloud.db.damaged-*"))
    assert [file.read_bytes()[:21] for file in aside] == [b"not a database at all"]

    refused = cli("launch", "--name", "x", "--no-push")
    assert refused.code == 1
    assert "until the books are rebuilt" in refused.err

    assert kinds(fsck(cli, "--rebuild")) == {token: "running"}
    cli.ok("launch", "--name", "z", "--no-push")
    assert list(cli.data.glob("gpucloud.db.damaged-*")) == aside


def test_a_rebuild_counts_only_when_every_provider_could_be_asked(cli: Cli) -> None:
    (cli.data).mkdir(parents=True)
    (cli.data / "gpucloud.db").write_bytes(b"garbage" * 1000)
    assert cli("ps").code == 1
    deaf = {"GPUCLOUD_SIM_SCRIPT": "auth"}
    assert cli("fsck", "--rebuild", env=deaf).code == 5
    assert cli("launch", "--name", "x", "--no-push", env=deaf).code == 1
    cli.ok("fsck", "--rebuild")
    cli.ok("launch", "--name", "x", "--no-push")


def test_a_newer_database_is_refused_and_not_touched(cli: Cli) -> None:
    cli.ok("ps")
    file = cli.data / "gpucloud.db"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = file.read_bytes()
    done = cli("ps")
    assert done.code == 1
    assert "newer gpucloud" in done.err
    assert file.read_bytes() == before


def test_what_should_be_gone_is_ended_by_fix(cli: Cli) -> None:
    token = launch(cli)
    with sqlite3.connect(cli.data / "gpucloud.db") as connection:
        connection.execute("UPDATE rentals SET state = 'gone', gone_at = intended_at")
    connection.close()
    done = fsck(cli)
    assert (done.code, kinds(done)) == (6, {token: "should-be-gone"})
    assert fsck(cli, "--fix").code == 6, "nobody agreed"
    assert fsck(cli, "--fix", "--yes").code == 0
    assert kinds(fsck(cli)) == {}


def test_unknown_instances_are_never_ended_without_a_person(cli: Cli) -> None:
    token = launch(cli)
    lose_books(cli)
    done = fsck(cli, "--fix", "--yes")
    assert (done.code, kinds(done)) == (6, {token: "unknown"})
    assert "left alone" in done.err
