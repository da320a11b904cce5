"""What the on-host program gets to run, through the shells that will read it."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.jobs.script import MASTER_PORT, command_text, environment, scripts
from gpucloud.model import Cluster, ClusterState, JobSpec, Rental, SshAddress
from tests.harness.books import a_rental

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SHELLS = [
    pytest.param(words, id=words[0])
    for words in (["sh"], ["bash"], ["dash"], ["busybox", "ash"])
    if shutil.which(words[0])
]
NASTY = {
    "EMPTY": "",
    "SPACES": "  two  words  ",
    "QUOTES": """it's "quoted" `twice`""",
    "DOLLARS": "$HOME ${HOME} $(id) $((1+1))",
    "LINES": "first\nsecond\n\nlast\n",
    "BACKSLASH": "\\ \\n \\\\ \\'",
    "GLOB": "* ? [a-z] ~ {a,b}",
    "OPERATORS": "; & | < > && || # ! ( )",
    "DASHES": "--rm -n",
    "CONTROL": "\a\b\t\r\x1b[31m\x7f",
    "UNICODE": "Grüße 你好 🚀 \u202e",
    "EQUALS": "a=b=c",
    "PERCENT": "%s %d %%",
}
OUR_VARIABLES = {
    "GPUCLOUD_JOB_ID",
    "GPUCLOUD_NODE_RANK",
    "GPUCLOUD_NUM_NODES",
    "GPUCLOUD_NODE_IPS",
    "GPUCLOUD_GPUS_PER_NODE",
    "MASTER_ADDR",
    "MASTER_PORT",
}


def a_cluster(*rentals: dict[str, Any]) -> Cluster:
    bare = Cluster(1, "train", ClusterState.READY, len(rentals), NOW)
    made: tuple[Rental, ...] = tuple(
        a_rental(bare, f"gc-{rank}", rank=rank, **known) for rank, known in enumerate(rentals)
    )
    return Cluster(1, "train", ClusterState.READY, len(made), NOW, rentals=made)


ONE = a_cluster({"ssh": SshAddress("192.0.2.1"), "gpu_count": 8})
THREE = a_cluster(*({"ssh": SshAddress(f"10.0.0.{n}"), "gpu_count": n} for n in (1, 2, 3)))


def seen(shell: list[str], text: str, home: Path) -> dict[str, str]:
    """The environment of a program that is started after a shell has read ``text``."""
    file = home / "env"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = subprocess.run(
        [*shell, "-c", '. "$1" && exec env -0', shell[0], str(file)],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == b""
    pairs = done.stdout.decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_value_reaches_the_job_as_it_is(shell: list[str], tmp_path: Path) -> None:
    spec = JobSpec("true", envs=NASTY, secrets={f"SECRET_{name}": value for name, value in NASTY.items()})
    found = seen(shell, environment(spec, ONE, 0, "j-1"), tmp_path)
    for name, value in NASTY.items():
        assert found[name] == value
        assert found[f"SECRET_{name}"] == value


@given(
    values=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=8)
)
def test_whatever_is_in_a_value_reaches_the_job_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    envs = {f"V{number}": value for number, value in enumerate(values)}
    text = environment(JobSpec("true", envs=envs), ONE, 0, "j-1")
    found = seen(["sh"], text, tmp_path_factory.mktemp("env"))
    assert {name: found[name] for name in envs} == envs


@pytest.mark.parametrize("shell", SHELLS)
def test_no_value_is_executed(shell: list[str], tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    attacks = [
        f"$(touch {trap})",
        f"`touch {trap}`",
        f"'; touch {trap}; '",
        f"\ntouch {trap}\n",
        f"&touch {trap}",
    ]
    spec = JobSpec("true", envs={f"A{number}": attack for number, attack in enumerate(attacks)})
    seen(shell, environment(spec, ONE, 0, f"j-1; touch {trap}"), tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_job_is_told_where_it_runs(tmp_path: Path, rank: int) -> None:
    found = seen(["sh"], environment(JobSpec("true"), THREE, rank, "j-abc"), tmp_path)
    assert {name: found[name] for name in OUR_VARIABLES} == {
        "GPUCLOUD_JOB_ID": "j-abc",
        "GPUCLOUD_NODE_RANK": str(rank),
        "GPUCLOUD_NUM_NODES": "3",
        "GPUCLOUD_NODE_IPS": "10.0.0.1\n10.0.0.2\n10.0.0.3",
        "GPUCLOUD_GPUS_PER_NODE": str(rank + 1),
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": str(MASTER_PORT),
    }


def test_nothing_else_is_set(tmp_path: Path) -> None:
    before = seen(["sh"], "", tmp_path)
    after = seen(["sh"], environment(JobSpec("true", envs={"MINE": "1"}), ONE, 0, "j-1"), tmp_path)
    assert set(after) - set(before) == {*OUR_VARIABLES, "MINE"}


def test_a_node_without_an_address_is_an_empty_line_so_that_ranks_still_count(tmp_path: Path) -> None:
    cluster = a_cluster({"ssh": SshAddress("10.0.0.1")}, {"ssh": None}, {"ssh": SshAddress("10.0.0.3")})
    found = seen(["sh"], environment(JobSpec("true"), cluster, 2, "j-1"), tmp_path)
    assert found["GPUCLOUD_NODE_IPS"] == "10.0.0.1\n\n10.0.0.3"


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"region": "eu"}, "10.0.0.1\n10.0.0.2"),
        ({"region": "us"}, "203.0.113.1\n203.0.113.2"),
        ({"region": "eu", "provider": "best"}, "203.0.113.1\n203.0.113.2"),
        ({"region": "eu", "ssh": SshAddress("203.0.113.2")}, "203.0.113.1\n203.0.113.2"),
    ],
)
def test_nodes_of_one_network_reach_each_other_within_it(
    tmp_path: Path, second: dict[str, Any], told: str
) -> None:
    first = {"ssh": SshAddress("203.0.113.1", inside="10.0.0.1"), "region": "eu"}
    cluster = a_cluster(first, {"ssh": SshAddress("203.0.113.2", inside="10.0.0.2"), **second})
    found = seen(["sh"], environment(JobSpec("true"), cluster, 0, "j-1"), tmp_path)
    assert found["GPUCLOUD_NODE_IPS"] == told
    assert found["MASTER_ADDR"] == told.split()[0]


def test_what_the_person_sets_wins_over_what_we_set(tmp_path: Path) -> None:
    spec = JobSpec("true", envs={"MASTER_PORT": "1234"}, secrets={"MASTER_ADDR": "mine"})
    found = seen(["sh"], environment(spec, ONE, 0, "j-1"), tmp_path)
    assert (found["MASTER_PORT"], found["MASTER_ADDR"]) == ("1234", "mine")


def test_the_files_of_a_job_are_its_texts_and_its_environment() -> None:
    spec = JobSpec("echo one\necho two", setup="pip install torch", envs={"A": "b"})
    files = scripts(spec, ONE, 0, "j-1")
    assert files == {
        "run": "echo one\necho two\n",
        "setup": "pip install torch\n",
        "env": environment(spec, ONE, 0, "j-1"),
    }


@pytest.mark.parametrize("setup", ["", " ", "\n\t\n"])
def test_without_a_setup_there_is_no_file_for_it(setup: str) -> None:
    assert set(scripts(JobSpec("true", setup=setup), ONE, 0, "j-1")) == {"run", "env"}


def test_secrets_are_in_the_environment_and_nowhere_else() -> None:
    files = scripts(JobSpec("true", setup="true", secrets={"TOKEN": "hf_s3cr3t"}), ONE, 0, "j-1")
    assert [name for name, text in files.items() if "hf_s3cr3t" in text] == ["env"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "words",
    [
        ["printf", "%s|", "a b", "c"],
        ["printf", "%s|", *NASTY.values()],
        ["printf", "%s|", "", ""],
        ["printf", "%s|", "$HOME", "*", "a;b"],
    ],
)
def test_several_words_are_a_command_with_exactly_these_words(
    shell: list[str], words: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*shell, "-c", command_text(words)], capture_output=True, cwd=tmp_path, timeout=30, check=True
    )
    assert done.stdout.decode() == "".join(f"{word}|" for word in words[2:])


@pytest.mark.parametrize("shell", SHELLS)
def test_one_word_is_a_line_of_shell(shell: list[str]) -> None:
    text = command_text(["echo one && echo $((1 + 1)) | cat"])
    done = subprocess.run([*shell, "-c", text], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "one\n2\n"
    assert command_text(["./train.sh"]) == "./train.sh"
