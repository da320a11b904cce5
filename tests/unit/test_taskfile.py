"""Task files: what they may say, and that each mistake is told with its file and line."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucloud.errors import ConfigError, UsageError
from gpucloud.model import Gpu, GpuWish, Market, Mount, Requirements
from gpucloud.taskfile import Task, load

TOP_KEYS = (
    *("name", "workdir", "num_nodes", "resources", "envs", "secrets"),
    *("file_mounts", "setup", "run", "outputs", "max_duration", "max_cost"),
)
RESOURCE_KEYS = ("accelerators", "infra", "cpus", "memory", "disk_size", "use_spot", "max_hourly_cost")

Loader = Callable[..., Task]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "vocab.txt").write_text("a\n")
    return folder


@pytest.fixture(scope="module")
def loads(folder: Path) -> Loader:
    """Write a text as ``task.yaml`` beside ``data/`` and ``vocab.txt``, and load it."""

    def load_text(
        text: str | bytes,
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
    ) -> Task:
        path = folder / "task.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(path, environ=environ or {}, overrides=overrides or {})

    return load_text


def refusal(loads: Loader, text: str | bytes, **given: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loads(text, **given)
    return caught.value


def test_the_least_a_file_can_say(loads: Loader, folder: Path) -> None:
    task = loads("run: nvidia-smi\n")
    assert task.job.run == "nvidia-smi"
    assert task.job.workdir == str(folder)
    assert (task.job.name, task.job.setup, task.job.mounts, task.job.outputs) == ("", "", (), ())
    assert (task.job.envs, task.job.secrets) == ({}, {})
    assert task.requirements == Requirements()
    assert task.nodes == 1
    assert (task.infra, task.disk_gib, task.max_duration, task.max_cost) == (None, None, None, None)


def test_every_key_arrives_where_it_belongs(loads: Loader, folder: Path) -> None:
    task = loads(
        """\
# Everything at once.
name: train-7b
workdir: data
num_nodes: 2
resources:
  accelerators: {A100-80GB: 8, H100: 8}
  infra: aws/us-east-1
  cpus: 8+
  memory: 64+
  disk_size: 200GB
  use_spot: true
  max_hourly_cost: 12.50
envs:
  EPOCHS: 3
secrets:
  HF_TOKEN:
file_mounts:
  ~/.vocab: vocab.txt
setup: |
  pip install -r requirements.txt
run: |
  python train.py
  echo done
outputs: [checkpoints, 'logs/*.txt']
max_duration: 2h30m
max_cost: $30
""",
        environ={"HF_TOKEN": "from-the-shell"},
    )
    assert task.job.name == "train-7b"
    assert task.job.workdir == str(folder / "data")
    assert task.job.envs == {"EPOCHS": "3"}
    assert task.job.secrets == {"HF_TOKEN": "from-the-shell"}
    assert task.job.mounts == (Mount(str(folder / "vocab.txt"), "~/.vocab"),)
    assert task.job.setup == "pip install -r requirements.txt\n"
    assert task.job.run == "python train.py\necho done\n"
    assert task.job.outputs == ("checkpoints", "logs/*.txt")
    assert task.requirements == Requirements(
        gpus=(GpuWish(8, Gpu("A100", 80)), GpuWish(8, Gpu("H100"))),
        markets=(Market.SPOT,),
        regions=("us-east-1",),
        max_usd_per_hour=Decimal("12.50"),
        min_vcpus=8,
        min_memory_gib=64,
        min_disk_gib=200,
    )
    assert (task.infra, task.nodes, task.disk_gib) == ("aws", 2, 200)
    assert (task.max_duration, task.max_cost) == (timedelta(hours=2, minutes=30), Decimal(30))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("H100", (GpuWish(1, Gpu("H100")),)),
        ("H100:8", (GpuWish(8, Gpu("H100")),)),
        ("H100-SXM-80:8", (GpuWish(8, Gpu("H100", 80, "SXM")),)),
        ("24GB+", (GpuWish(1, None, 24),)),
        ("H100|A100-80", (GpuWish(1, Gpu("H100")), GpuWish(1, Gpu("A100", 80)))),
        ("'H100:2 | A100:4'", (GpuWish(2, Gpu("H100")), GpuWish(4, Gpu("A100")))),
        ("{A100-80GB: 8, H100: '4'}", (GpuWish(8, Gpu("A100", 80)), GpuWish(4, Gpu("H100")))),
        ("{L4:1, A10G:2}", (GpuWish(1, Gpu("L4")), GpuWish(2, Gpu("A10G")))),
        ("[L4:1, A10G:2, 40GB+]", (GpuWish(1, Gpu("L4")), GpuWish(2, Gpu("A10G")), GpuWish(1, None, 40))),
        (
            "\n  - L4\n  - H100|H200",
            (GpuWish(1, Gpu("L4")), GpuWish(1, Gpu("H100")), GpuWish(1, Gpu("H200"))),
        ),
        ("0", ()),
        ("none", ()),
        ("None", ()),
        ("null", ()),
        ("", ()),
        ("[]", ()),
        ("{}", ()),
    ],
)
def test_accelerators(loads: Loader, text: str, expected: tuple[GpuWish, ...]) -> None:
    assert loads(f"run: x\nresources:\n accelerators: {text}\n").requirements.gpus == expected


@pytest.mark.parametrize(
    ("text", "provider", "regions"),
    [
        ("runpod", "runpod", ()),
        ("aws/us-east-1", "aws", ("us-east-1",)),
        ("aws/us-east-1/us-east-1a", "aws", ("us-east-1a",)),
        ("aws/us-east-1/*", "aws", ("us-east-1",)),
        ("aws/*/us-east-1a", "aws", ("us-east-1a",)),
        ("aws/*", "aws", ()),
        ("'*'", None, ()),
        ("'*/us-east-1'", None, ("us-east-1",)),
    ],
)
def test_infra(loads: Loader, text: str, provider: str | None, regions: tuple[str, ...]) -> None:
    task = loads(f"run: x\nresources: {{infra: {text}}}\n")
    assert (task.infra, task.requirements.regions) == (provider, regions)


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("cpus: 8", "min_vcpus", 8),
        ("cpus: '8'", "min_vcpus", 8),
        ("cpus: 8+", "min_vcpus", 8),
        ("memory: 32", "min_memory_gib", 32),
        ("memory: 32+", "min_memory_gib", 32),
        ("memory: 32GB", "min_memory_gib", 32),
        ("memory: 1.5GB", "min_memory_gib", 2),
        ("memory: 512MB", "min_memory_gib", 1),
        ("disk_size: 200", "min_disk_gib", 200),
        ("disk_size: 1TB", "min_disk_gib", 1024),
        ("use_spot: true", "markets", (Market.SPOT,)),
        ("use_spot: False", "markets", (Market.ON_DEMAND,)),
        ("max_hourly_cost: 2.50", "max_usd_per_hour", Decimal("2.50")),
        ("max_hourly_cost: $2", "max_usd_per_hour", Decimal(2)),
    ],
)
def test_one_resource(loads: Loader, line: str, field: str, expected: object) -> None:
    requirements = loads(f"run: x\nresources:\n  {line}\n").requirements
    assert getattr(requirements, field) == expected


@pytest.mark.parametrize("section", ["resources", "envs", "secrets", "file_mounts"])
def test_a_section_whose_lines_are_commented_out_is_empty(loads: Loader, section: str) -> None:
    assert loads(f"{section}:\n  # nothing\nrun: x\n") == loads("run: x\n")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("run: x\nacelerators: 8\n", 2, "unknown key 'acelerators'"),
        ("run: x\n<<: {setup: y}\n", 2, "unknown key '<<'"),
        ("run: x\n1: y\n", 2, "unknown key '1'"),
        ("run: x\n? [a]\n: b\n", 2, "a key of the file must be a single value, not a list"),
        ("run: x\n~: b\n", 2, "a key of the file has no value"),
        ("run: x\nsetup: y\nrun: z\n", 3, "'run' is there twice"),
        ("run:\nsetup: y\n", 1, "run has no value"),
        ("run: '  '\n", 1, "run has no value"),
        ("setup: y\nrun: [a]\n", 2, "run must be a single value, not a list"),
        ("run: x\nsetup:\n", 2, "setup has no value"),
        ("run: !shell x\n", 1, "run has a YAML tag"),
        ("run: !!binary eA==\n", 1, "run has a YAML tag"),
        ('run: "a\\0b"\n', 1, "run holds a NUL"),
        ('run: "a\\ud800b"\n', 1, "run holds a NUL or a lone surrogate"),
        ("run: x\nname: My-Job\n", 2, "name is not valid"),
        ("run: x\nname: -a\n", 2, "name is not valid"),
        (f"run: x\nname: {'a' * 41}\n", 2, "name is not valid"),
        ("run: x\nworkdir: nowhere\n", 2, "workdir is not valid"),
        ("run: x\nworkdir: vocab.txt\n", 2, "workdir is not valid"),
        ("run: x\nworkdir: {url: y}\n", 2, "workdir must be a single value, not a map"),
        (f"run: x\nworkdir: {'a' * 300}\n", 2, "workdir is not valid"),
        ("run: x\nworkdir: ~nobody-has-this-name/x\n", 2, "workdir is not valid"),
        ("run: x\nnum_nodes: 0\n", 2, "num_nodes is not valid"),
        ("run: x\nnum_nodes: two\n", 2, "num_nodes is not valid"),
        ("run: x\nnum_nodes: 1.5\n", 2, "num_nodes is not valid"),
        ("run: x\nnum_nodes: true\n", 2, "num_nodes is not valid"),
        ("run: x\nnum_nodes: 010\n", 2, "num_nodes is not valid"),
        ("run: x\nmax_duration: 3600\n", 2, "max_duration is not valid"),
        ("run: x\nmax_duration:\nsetup: y\n", 2, "max_duration has no value"),
        ("run: x\nmax_cost: cheap\n", 2, "max_cost is not valid"),
        ("run: x\nmax_cost: -1\n", 2, "max_cost is not valid"),
        ("run: x\nresources: H100\n", 2, "resources must be a map, not a single value"),
        ("run: x\nresources:\n  gpu: H100\n", 3, "unknown key 'gpu'"),
        ("run: x\nresources:\n  cpus: 1\n  cpus: 2\n", 4, "'cpus' is there twice"),
        ("run: x\nresources:\n  cpus: 8x\n", 3, "resources.cpus is not valid"),
        ("run: x\nresources:\n  cpus: +\n", 3, "resources.cpus is not valid"),
        ("run: x\nresources:\n  memory: 4x\n", 3, "resources.memory is not valid"),
        ("run: x\nresources:\n  memory: 0\n", 3, "resources.memory is not valid"),
        ("run: x\nresources:\n  disk_size: big\n", 3, "resources.disk_size is not valid"),
        ("run: x\nresources:\n  disk_size: 0GB\n", 3, "resources.disk_size is not valid"),
        ("run: x\nresources:\n  use_spot: yes\n", 3, "resources.use_spot is not valid"),
        ("run: x\nresources:\n  use_spot: 1\n", 3, "resources.use_spot is not valid"),
        ("run: x\nresources:\n  max_hourly_cost: -2\n", 3, "resources.max_hourly_cost is not valid"),
        ("run: x\nresources:\n  infra: a/b/c/d\n", 3, "resources.infra is not valid"),
        ("run: x\nresources:\n  infra: aws//x\n", 3, "resources.infra is not valid"),
        ("run: x\nresources:\n  infra: *\n", 3, "not valid YAML"),
        ("run: x\nresources:\n  accelerators: 8\n", 3, "resources.accelerators is not valid"),
        ("run: x\nresources:\n  accelerators: H100:0\n", 3, "resources.accelerators is not valid"),
        ("run: x\nresources:\n  accelerators: 'H100|'\n", 3, "resources.accelerators is not valid"),
        ("run: x\nresources:\n  accelerators: 'H100|8'\n", 3, "resources.accelerators is not valid"),
        (
            "run: x\nresources:\n  accelerators:\n    H100: many\n",
            4,
            "resources.accelerators.H100 is not valid",
        ),
        (
            "run: x\nresources:\n  accelerators:\n    H100:8: 8\n",
            4,
            "resources.accelerators.H100:8 is not valid",
        ),
        ("run: x\nresources:\n  accelerators:\n    - L4\n    - [A10]\n", 5, "must be a single value"),
        ("run: x\nresources:\n  accelerators:\n    - L4\n    -\n", 5, "resources.accelerators has no value"),
        ("run: x\nenvs: [A=1]\n", 2, "envs must be a map, not a list"),
        ("run: x\nenvs:\n  1A: x\n", 3, "a key of envs cannot be a variable"),
        ("run: x\nenvs:\n  A-B: x\n", 3, "a key of envs cannot be a variable"),
        ("run: x\nenvs:\n  A: {b: c}\n", 3, "envs.A must be a single value, not a map"),
        ("run: x\nenvs:\n  A: 1\n  B: 2\n  A: 3\n", 5, "'A' is there twice"),
        ("envs:\n  A: 1\nrun: x\nsecrets:\n  B: 2\n  A: 3\n", 6, "A is in envs and in secrets"),
        ("secrets:\n  A: 1\nrun: x\nenvs:\n  A: 3\n", 5, "A is in envs and in secrets"),
        ("run: x\nenvs:\n  A:\n", 3, "A has no value"),
        ("run: x\nsecrets:\n  A: null\n", 3, "A has no value"),
        ("run: x\noutputs: /etc\n", 2, "outputs is not valid"),
        ("run: x\noutputs: ~/x\n", 2, "outputs is not valid"),
        ("run: x\noutputs: {a: b}\n", 2, "outputs must be a single value, not a map"),
        ("run: x\noutputs:\n  - a\n  - b/../../c\n", 4, "outputs is not valid"),
        ("run: x\noutputs: ['']\n", 2, "outputs has no value"),
        ("run: x\noutputs: !mine [a]\n", 2, "outputs has a YAML tag"),
        ("run: x\nfile_mounts: data\n", 2, "file_mounts must be a map, not a single value"),
        ("run: x\nfile_mounts:\n  a: nowhere\n", 3, "file_mounts.a is not valid"),
        ("run: x\nfile_mounts:\n  a: s3://bucket/x\n", 3, "only local file mounts"),
        ("run: x\nfile_mounts:\n  /a: gs://bucket\n", 3, "only local file mounts"),
        ("run: x\nfile_mounts:\n  /a:\n    name: bucket\n    mode: MOUNT\n", 3, "only local file mounts"),
        ("run: x\nfile_mounts:\n  a: [data]\n", 3, "file_mounts.a must be a single value, not a list"),
        ("run: x\nfile_mounts:\n  a:\n", 3, "file_mounts.a has no value"),
        ("run: x\nfile_mounts:\n  ../a: data\n", 3, "file_mounts.../a is not valid"),
        ("run: x\nfile_mounts:\n  ~/a/../../b: data\n", 3, "is not valid"),
        ("run: x\nfile_mounts:\n  ~root/a: data\n", 3, "is not valid"),
        ("run: x\nfile_mounts:\n  .: data\n", 3, "is not valid"),
        ("run: x\nfile_mounts:\n  /: data\n", 3, "is not valid"),
        ("run: x\nfile_mounts:\n  ~/: data\n", 3, "is not valid"),
        ("run: x\nfile_mounts:\n  a: data\n  ./a/: vocab.txt\n", 4, "'a' is mounted twice"),
        ("- run: x\n", 1, "the file must be a map, not a list"),
        ("\nnvidia-smi\n", 2, "the file must be a map, not a single value"),
        ("!task {run: x}\n", 1, "the file has a YAML tag"),
        ("run: x\n---\nrun: y\n", 2, "another document begins"),
        ("run: x\n---\n", 2, "another document begins"),
        ("run: x\nsetup: [a\n", 3, "not valid YAML"),
        ("run: x\nsetup: a: b\n", 2, "not valid YAML"),
        ("run: x\nresources:\n\tcpus: 8\n", 3, "not valid YAML"),
        ("run: x\nsetup: a\x07b\n", 2, "not valid YAML"),
        ("\ufeffrun: x\nsetup: a\x07b\n", 2, "not valid YAML"),
        (b"run: x\nsetup: caf\xe9\n", 2, "not UTF-8 text"),
        ("run: x\n".encode("utf-16"), 1, "not UTF-8 text"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    loads: Loader, folder: Path, text: str | bytes, line: int, said: str
) -> None:
    error = refusal(loads, text)
    assert error.message.startswith(f"{folder / 'task.yaml'}:{line}: ")
    assert said in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# run: x\n", "is empty"),
        ("---\n", "is empty"),
        ("{}\n", "run is missing"),
        ("name: a\n", "run is missing"),
        ('run: "\\UFFFFFFFF"\n', "not valid YAML"),
        ('run: "\\U00110000"\n', "not valid YAML"),
        ("%YAML 1.3\n---\nrun: x\n", "not valid YAML"),
        ("{:\n%YAML 1.3\n%?", "not valid YAML"),
        (f"run: {'[' * 5000}", "not valid YAML"),
    ],
)
def test_a_mistake_of_the_whole_file(loads: Loader, text: str, said: str) -> None:
    error = refusal(loads, text)
    assert "task.yaml" in error.message
    assert said in error.message
    assert error.why
    assert error.hint


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("resources:\n  acelerators: H100\n", "resources knows accelerators, infra,", "'accelerators'"),
        ("run: x\nresource: {}\n", "a task file knows name, workdir,", "'resources'"),
        ("run: x\nservice: {}\n", "a task file knows", "remove it"),
        ("run: x\nenvs: {A: }\n", "envs.A is required", "--env A="),
        ("run: x\nsecrets: {A: }\n", "secrets.A is required", "export A="),
        ("run: x\nname: x\nname: y\n", "also on line 2", ""),
        ("run: x\nresources: {use_spot: yes}\n", "'yes' is not true or false", ""),
        ("run: x\nresources: {accelerators: 8}\n", "not which GPU; write H100:8", ""),
        ("run: x\nmax_duration: 3600\n", "write 90s, 15m, 6h", ""),
        ("run: x\nfile_mounts: {a: s3://b}\n", "not a bucket", "setup"),
    ],
)
def test_a_mistake_is_explained(loads: Loader, text: str, why: str, hint: str) -> None:
    error = refusal(loads, text)
    assert why in error.why
    assert hint in error.hint


def test_the_first_mistake_in_the_file_is_the_one_told(loads: Loader) -> None:
    error = refusal(loads, "num_nodes: none\nresources:\n  gpu: 1\nname: NO\n")
    assert ":1: num_nodes" in error.message
    error = refusal(loads, "resources:\n  cpus: none\n  gpu: 1\nnum_nodes: none\n")
    assert ":2: resources.cpus" in error.message


@pytest.mark.parametrize("key", TOP_KEYS)
def test_no_top_level_key_takes_a_list_of_lists(loads: Loader, key: str) -> None:
    assert f":2: {key} must be" in refusal(loads, f"\n{key}: [[1]]\n").message


@pytest.mark.parametrize("key", RESOURCE_KEYS)
def test_no_resource_takes_a_list_of_lists(loads: Loader, key: str) -> None:
    assert f":3: resources.{key} must be" in refusal(loads, f"\nresources:\n  {key}: [[1]]\n").message


@settings(deadline=None)
@given(key=st.from_regex(r"[A-Za-z_][A-Za-z_0-9]{0,20}", fullmatch=True))
def test_any_unknown_key_is_refused(loads: Loader, key: str) -> None:
    for text, known in ((f"run: x\n{key}: 1\n", TOP_KEYS), (f"resources:\n  {key}: 1\n", RESOURCE_KEYS)):
        if key not in known and key.lower() != "null":
            assert f"task.yaml:2: unknown key {key!r}" in refusal(loads, text).message


@pytest.mark.parametrize(
    "written",
    [
        *("1e-3", "010", "0x1F", "0o17", "1_000", "1:30", ".5", "+1", "-0", "1.10", ".inf"),
        *("true", "True", "yes", "off", "n", "2024-01-01", "=", "a:b"),
    ],
)
def test_variables_keep_the_text_that_was_written(loads: Loader, written: str) -> None:
    job = loads(f"run: x\nenvs: \n  A: {written}\nsecrets:\n  B: {written}\n").job
    assert (job.envs, job.secrets) == ({"A": written}, {"B": written})


@settings(deadline=None)
@given(written=st.from_regex(r"[-+]?[0-9]{1,6}(\.[0-9]{0,6})?([eE][-+]?[0-9]{1,3})?", fullmatch=True))
def test_numbers_keep_the_text_that_was_written(loads: Loader, written: str) -> None:
    assert loads(f"run: x\nenvs: {{A: {written}}}\n").job.envs == {"A": written}


@settings(deadline=None)
@given(value=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_quoted_variables_keep_their_text(loads: Loader, value: str) -> None:
    quoted = "'" + value.replace("'", "''") + "'"
    assert loads(f"run: x\nenvs:\n  A: {quoted}\n").job.envs == {"A": value}


def test_text_keys_keep_numbers_and_booleans_as_written(loads: Loader) -> None:
    job = loads("name: 010\nrun: yes\nsetup: 1e3\noutputs: [2024, on]\n").job
    assert (job.name, job.run, job.setup, job.outputs) == ("010", "yes", "1e3", ("2024", "on"))


def test_block_text_is_what_the_shell_gets(loads: Loader) -> None:
    job = loads("run: >\n  python\n  train.py # not a comment\nsetup: |-\n  a\n    b\n\n  c\n").job
    assert job.run == "python train.py # not a comment\n"
    assert job.setup == "a\n  b\n\nc"


def test_a_file_from_windows_reads_the_same(loads: Loader) -> None:
    text = "run: |\n  a\n  b\nenvs:\n  A: 1\n"
    assert loads(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()) == loads(text)


def test_anchors_are_followed_and_may_be_defined_anew(loads: Loader) -> None:
    task = loads("envs:\n  A: &v one\n  B: *v\n  C: &v two\n  D: *v\nrun: x\n")
    assert task.job.envs == {"A": "one", "B": "one", "C": "two", "D": "two"}


def test_a_map_within_itself_ends(loads: Loader) -> None:
    assert ":1: envs.A must be a single value" in refusal(loads, "envs: &e {A: *e}\nrun: x\n").message


@pytest.mark.parametrize("section", ["envs", "secrets"])
@pytest.mark.parametrize(
    ("written", "environ", "overrides", "expected"),
    [
        ("file", {}, {}, "file"),
        ("file", {"A": "shell"}, {}, "file"),
        ("file", {"A": "shell"}, {"A": "flag"}, "flag"),
        ("", {"A": "shell"}, {}, "shell"),
        ("", {"A": "shell"}, {"A": "flag"}, "flag"),
        ("", {}, {"A": "flag"}, "flag"),
        ("~", {"A": ""}, {}, ""),
        ("file", {}, {"A": ""}, ""),
        ("''", {"A": "shell"}, {}, ""),
    ],
)
def test_override_beats_file_beats_environment(
    loads: Loader,
    section: str,
    written: str,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
    expected: str,
) -> None:
    job = loads(f"run: x\n{section}:\n  A: {written}\n", environ=environ, overrides=overrides).job
    assert {"envs": job.envs, "secrets": job.secrets} == {"envs": {}, "secrets": {}, section: {"A": expected}}


def test_overrides_add_variables_and_nothing_else_comes_from_the_environment(loads: Loader) -> None:
    job = loads("run: x\nenvs: {B: 1}\n", environ={"HOME": "/h"}, overrides={"A": "2", "C": "3"}).job
    assert list(job.envs.items()) == [("B", "1"), ("A", "2"), ("C", "3")]


def test_an_overridden_value_is_still_checked(loads: Loader) -> None:
    assert "envs.A must be a single" in refusal(loads, "envs: {A: [1]}\n", overrides={"A": "2"}).message


@pytest.mark.parametrize("overrides", [{"1A": "hunter2"}, {"": "hunter2"}, {"A": "hunter2\udc80"}])
def test_an_override_that_cannot_be_a_variable_is_misuse(loads: Loader, overrides: Mapping[str, str]) -> None:
    with pytest.raises(UsageError, match="cannot be a variable") as caught:
        loads("run: x\n", overrides=overrides)
    assert "hunter2" not in repr(caught.value)


def test_a_value_of_the_environment_that_is_not_text_is_refused(loads: Loader) -> None:
    error = refusal(loads, "run: x\nsecrets: {A: }\n", environ={"A": "hunter2\udc80"})
    assert ":2: A cannot be passed on" in error.message
    assert "hunter2" not in f"{error!r} {error.why} {error.hint}"


@pytest.mark.parametrize(
    "text",
    [
        "secrets: hunter2\n",
        "secrets: [hunter2]\n",
        "secrets: [{A: hunter2}]\n",
        "secrets: {A: {B: hunter2}}\n",
        "secrets: {A: [hunter2]}\n",
        "secrets: {A:hunter2}\n",
        "secrets: {A=hunter2}\n",
        "secrets: {A: hunter2, A: hunter2}\n",
        "secrets: {A-B: hunter2}\n",
        "secrets: {A: hunter2}\nenvs: {A: hunter2}\n",
        "secrets: {A: !x hunter2}\n",
        "secrets: {A: !!binary hunter2}\n",
        'secrets: {A: "hunter2\\0"}\n',
        "secrets: {A: *hunter2}\n",
        "secrets: {A: !hunter2!x y}\n",
        "secrets: {A: hunter2\n",
        "secrets:\n  A: hunter2\n B: x\n",
        "secrets:\n  A: 'hunter2\n",
        "secrets:\n  A: hunter2: x\n",
        "secrets:\n  A: @hunter2\n",
        "secrets:\n  A: hunter2\x07\n",
        "secrets:\n  A: hunter2\n---\n",
        "secrets: {A: hunter2}\nnam: x\n",
        "secrets: {A: hunter2}\nrun:\n",
        b"secrets: {A: hunter2\xff}\n",
    ],
)
def test_no_mistake_shows_a_secret(loads: Loader, text: str | bytes) -> None:
    error = refusal(loads, text)
    shown = [repr(error), error.why, error.hint, *traceback.format_exception(error, chain=True)]
    assert "hunter2" not in "\n".join(shown)


def test_no_task_shows_a_secret(loads: Loader) -> None:
    task = loads(
        "run: x\nsecrets: {A: hunter2, B: , C: }\n", environ={"B": "hunter2"}, overrides={"C": "hunter2"}
    )
    assert task.job.secrets == dict.fromkeys("ABC", "hunter2")
    assert "hunter2" not in repr(task)


def test_mounts(loads: Loader, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    mounts = loads(
        f"""\
run: x
workdir: data
file_mounts:
  data/: ./data
  conf/vocab.txt: vocab.txt
  ~/corpus: ~/corpus
  /opt/../mnt: {tmp_path}
"""
    ).job.mounts
    assert mounts == (
        Mount(str(folder / "data"), "data"),
        Mount(str(folder / "vocab.txt"), "conf/vocab.txt"),
        Mount(str(tmp_path / "corpus"), "~/corpus"),
        Mount(str(tmp_path), "/opt/../mnt"),
    )


def test_paths_are_relative_to_the_file_and_not_to_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "jobs" / "a.yaml").write_text("run: x\nworkdir: ../src\nfile_mounts: {a: a.yaml}\n")
    monkeypatch.chdir(tmp_path)
    job = load(Path("jobs/a.yaml"), environ={}).job
    assert job.workdir == str(tmp_path / "src")
    assert job.mounts == (Mount(str(tmp_path / "jobs" / "a.yaml"), "a"),)
    (tmp_path / "jobs" / "b.yaml").write_text("run: x\n")
    assert load(Path("jobs/b.yaml"), environ={}).job.workdir == str(tmp_path / "jobs")


def test_the_message_names_the_file_as_it_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task.yaml").write_text("run: x\n\nresources:\n  cpus: 8\n\n\n  acelerators: H100\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(Path("task.yaml"), environ={})
    assert caught.value.message == "task.yaml:7: unknown key 'acelerators'"
    assert caught.value.hint == "did you mean 'accelerators'?"


@pytest.mark.parametrize("name", ["missing.yaml", "file/task.yaml"])
def test_a_missing_file_is_misuse(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / name, environ={})


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name, why in (("", "Is a directory"), ("loop", "symbolic links"), ("loop/a.yaml", "symbolic links")):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load(tmp_path / name, environ={})
        assert why in caught.value.why


def test_a_source_that_cannot_be_looked_up_is_refused(loads: Loader, folder: Path) -> None:
    loop = folder / "loop"
    loop.symlink_to("loop")
    assert ":2: workdir is not valid" in refusal(loads, "run: x\nworkdir: loop\n").message
    assert ":2: file_mounts.a is not valid" in refusal(loads, "run: x\nfile_mounts: {a: loop}\n").message


YAML_PIECES = [
    *("run", "envs", "secrets", "resources", "accelerators", "outputs", "file_mounts", "x", "1", "null"),
    *(":", ": ", "- ", "? ", "\n", "\n  ", " ", "\t", ",", "[", "]", "{", "}", "#", "'", '"', "|", ">", "<<"),
    *("&a ", "*a", "!x ", "!!str ", "!!null ", "!<", "%YAML 1.3", "%YAML 1.1", "%TAG ! x", "---", "..."),
    *(
        "\\0",
        "\\ud800",
        "\\UFFFFFFFF",
        "\x85",
        "\u2028",
        "\r",
        "\ufeff",
        "\x07",
        "\U0001f600",
        "~",
        "/",
        "..",
    ),
]


@settings(deadline=None)
@given(
    content=st.binary(max_size=40)
    | st.lists(st.sampled_from(YAML_PIECES), max_size=25).map(lambda pieces: "".join(pieces).encode())
)
def test_any_file_is_read_or_refused(loads: Loader, content: bytes) -> None:
    try:
        task = loads(content)
    except ConfigError as error:
        assert "task.yaml" in error.message
    else:
        assert task.job.run.strip()


def test_the_yaml_parser_is_imported_only_when_a_file_is_read() -> None:
    check = "import sys, gpucloud.taskfile; sys.exit('ruamel.yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0
