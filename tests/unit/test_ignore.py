from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucloud.errors import SyncFailed
from gpucloud.remote.ignore import IgnoreRules, included

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed, and it is what is compared with")

# fmt: off
NAMES = [
    "a", "b", "ab", "abc", "A", "a b", "é", "aé", "#a", "!a", "a.b", "a]", "[a]", "*", "a\nb", "-", "\\",
    "B", "aB", "É", os.fsdecode(b"\xff"), os.fsdecode(b"a\xff"),
]
WORDS = [
    *"abcA/*?!#-]^.: \t\r\\é", "**", "/**", "**/", "**/**", "***", "\\#", "\\!", "\\*", "\\[", "\\\\", "\\ ",
    "[ab]", "[!a]", "[^b]", "[a-c]", "[c-a]", "[]a]", "[!]a]", "[a-]", "[-a]", "[\\]a]", "[a\\-c]", "[a", "[",
    "[é]", "[[a]", "[a/b]", "[!/]", "[&&a]", "[[:alpha:]]", "[![:upper:]]", "[[:space:]]", "[[:punct:]x]",
    "[[:bad:]]", "[[:alpha]", "[A]", "[!A]", "[A-C]", "[!a-z]", "[[:lower:]]", "[[:digit:]_-]", "\\A", "B",
    os.fsdecode(b"\xff"), os.fsdecode(b"[\xff]"), os.fsdecode(b"[\x80-\xff]"), "\ufeff",
]
# fmt: on


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without settings: those of the person who runs the tests must not count."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    return home


def make_repository(root: Path) -> None:
    """The least that git takes for a repository; ``git init`` would copy its templates."""
    for folder in ("objects", "refs", "info"):
        (root / ".git" / folder).mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")


def left_out(root: Path, rules: IgnoreRules | None = None, inside: str = "") -> set[str]:
    """Walk as ``scan`` does and name everything that is excluded, with what is below it."""
    rules = rules or IgnoreRules.at(root)
    excluded = set()
    for entry in os.scandir(root):
        path = inside + entry.name
        folder = entry.is_dir(follow_symlinks=False)
        if entry.name == ".git":
            assert rules.excludes(entry.name, folder=folder)
        elif rules.excludes(entry.name, folder=folder):
            excluded |= {path} | {f"{path}/{below}" for below in everything(Path(entry.path)) if folder}
        elif folder:
            excluded |= left_out(Path(entry.path), rules.inside(entry.name, entry.path), path + "/")
    return excluded


def everything(root: Path) -> list[str]:
    paths = [path.relative_to(root) for path in root.rglob("*")]
    return [str(path) for path in paths if ".git" not in path.parts]


def ignored_by_git(root: Path, paths: list[str]) -> set[str]:
    assert GIT
    asked = subprocess.run(
        [GIT, "check-ignore", "--no-index", "--stdin", "-z", "-v", "-n"],
        cwd=root,
        input=b"\0".join(map(os.fsencode, paths)),
        capture_output=True,
        check=False,
    )
    assert asked.returncode in {0, 1}, asked.stderr
    fields = [os.fsdecode(field) for field in asked.stdout.split(b"\0")]
    verdicts = list(zip(fields[0::4], fields[2::4], fields[3::4], strict=False))
    assert len(verdicts) == len(paths)
    return {path for source, pattern, path in verdicts if source and not pattern.startswith("!")}


def left_out_by_git(root: Path) -> set[str]:
    """What git leaves out; of a repository inside this one git has to be asked there."""
    inner = [path.parent for path in root.rglob(".git") if path.parent != root]
    inner = [path for path in inner if not any(other in path.parents for other in inner)]
    ours = [p for p in everything(root) if not any(i in (root / p).parents for i in inner)]
    theirs = ignored_by_git(root, ours)
    for path in inner:
        name = str(path.relative_to(root))
        below = everything(path) if name in theirs else left_out_by_git(path)
        theirs |= {f"{name}/{entry}" for entry in below}
    return theirs


trees = st.sets(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(tuple), min_size=1, max_size=12)
lines = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join),
    st.lists(st.sampled_from([*NAMES[:8], "*", "**", "?"]), min_size=1, max_size=4).map("/".join),
    st.text("ab[]!^-\\:*?/ #éAB", max_size=8),
    st.sampled_from(NAMES),
)
starts, ends = st.sampled_from(["", "", "!", "/"]), st.sampled_from(["", "", "/", "/**", " ", "/*"])
# In **\/b git wants at least one folder for the stars, and we do not: nobody escapes a slash.
rules = st.tuples(starts, lines, ends).map("".join).filter(lambda line: "**\\/" not in line)
rules_files = st.builds(
    lambda start, end, lines: os.fsencode(start + end.join(lines)),
    st.sampled_from(["", "", "\ufeff"]),
    st.sampled_from(["\n", "\n", "\r\n"]),
    st.lists(rules, max_size=6),
)
FOLDERS = ["a", "b", "a/b", "ab"]


@needs_git
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tree=trees,
    in_root=rules_files,
    in_folder=st.dictionaries(st.sampled_from(FOLDERS), rules_files, max_size=2),
    info_exclude=rules_files,
    global_excludes=rules_files,
    inner=st.dictionaries(st.sampled_from(FOLDERS), rules_files, max_size=1),
    ignore_case=st.booleans(),
    pushed=st.sampled_from(["", "a", "a/b"]),
)
def test_rules_are_those_of_git(
    home: Path,
    tree: set[tuple[str, ...]],
    in_root: bytes,
    in_folder: dict[str, bytes],
    info_exclude: bytes,
    global_excludes: bytes,
    inner: dict[str, bytes],
    ignore_case: bool,
    pushed: str,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_repository(root)
        for path in sorted(tree, key=len, reverse=True):
            target = root.joinpath(*path)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(b"")
        for folder, text in {"": in_root, **in_folder}.items():
            if (root / folder).is_dir():
                (root / folder / ".gitignore").write_bytes(text)
        for folder, text in {"": info_exclude, **inner}.items():
            if (root / folder).is_dir():
                if folder:
                    make_repository(root / folder)
                (root / folder / ".git" / "info" / "exclude").write_bytes(text)
        excludes = home / ".config" / "git" / "ignore"
        excludes.parent.mkdir(parents=True, exist_ok=True)
        excludes.write_bytes(global_excludes)
        (home / ".gitconfig").write_text(f"[core]\n\tignoreCase = {ignore_case}\n")
        theirs = left_out_by_git(root)
        assert left_out(root) == theirs

        if pushed and (root / pushed).is_dir() and pushed not in theirs:
            below = {path.removeprefix(pushed + "/") for path in theirs if path.startswith(pushed + "/")}
            assert left_out(root / pushed) == below


CORNERS = r"""
a**/b
d/a**
/a[[:space:]]b
[[:punct:]]
/d[^x]a
d//
d\/a
?\/**
[]a]
[!]a]
[\]]
[c-a]
[a-]
[[:bad:]]
[a
a?
[é]
**/*
d/**
d/**/
/**
/*/
*/
!d/
\!a
\#a
"""


@needs_git
@pytest.mark.parametrize(
    "line", [*CORNERS.splitlines(), "a \r", "a\t", "a  ", "a\\ ", "\u00e0\u00a0", "a\0b"]
)
def test_corners_are_those_of_git(tmp_path: Path, line: str) -> None:
    make_repository(tmp_path)
    tree = dict.fromkeys(
        ["a", "aé", "ab", "a b", "a ", "a\t", "b", "]", "-", "!a", "#a", "d/a", "d/ax/b", "é", "à"], ""
    )
    write(tmp_path, tree)
    (tmp_path / ".gitignore").write_text(f"*.c\n{line}\n", newline="")
    assert left_out(tmp_path) == ignored_by_git(tmp_path, everything(tmp_path))


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_gpucloudignore_wins_over_the_gitignore_beside_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".gitignore": "data/\n*.log\n",
            ".gpucloudignore": "!data/\n*.bin\n",
            "data/x": "",
            "y.bin": "",
            "z.log": "",
            "sub/.gitignore": "!*.bin\n",
            "sub/y.bin": "",
        },
    )
    assert left_out(tmp_path) == {"y.bin", "z.log"}


def test_the_git_folder_is_never_sent(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "!.git\n", ".git": "gitdir: elsewhere\n", "sub/.git/HEAD": ""})
    rules = IgnoreRules.at(tmp_path)
    assert rules.excludes(".git", folder=False)
    assert rules.inside("sub", tmp_path / "sub").excludes(".git", folder=True)


def test_git_is_told_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git, told, excludes = tmp_path / "bin" / "git", tmp_path / "told", tmp_path / "excludes"
    answer = 'printf "core.excludesfile\\n%s\\0" "$GIT_CONFIG_EXCLUDES"\n'
    write(tmp_path, {"bin/git": f'#!/bin/sh\nenv >"{told}"\n{answer}', "excludes": "b\n"})
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{git.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_EXCLUDES", str(excludes))
    for name in ("PLANTED", "GIT_TOKEN"):
        monkeypatch.setenv(name, "secret")
    make_repository(tmp_path / "tree")
    write(tmp_path / "tree", {"a": "", "b": ""})
    assert left_out(tmp_path / "tree") == {"b"}
    assert "=secret" not in told.read_text()


def test_a_folder_that_is_excluded_itself_can_be_sent(tmp_path: Path) -> None:
    make_repository(tmp_path)
    write(tmp_path, {".gitignore": "build/\n*.o\n", "build/app": "", "build/main.o": ""})
    assert left_out(tmp_path / "build") == {"main.o"}


def test_rules_above_the_repository_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "x\n", "repository/x": ""})
    make_repository(tmp_path / "repository")
    assert left_out(tmp_path / "repository") == set()


def test_a_symlink_to_a_folder_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "data").symlink_to("target")
    (tmp_path / ".gitignore").write_text("data/\n")
    assert left_out(tmp_path) == set()


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    write(tmp_path, {name: "", "kept": ""})
    (tmp_path / ".gitignore").write_bytes(b"\xef\xbb\xbf\xff?\n\x80\0\n[\xff\n" + b"\xff" * 2_000_000)
    assert left_out(tmp_path) == {name}


@needs_git
def test_a_gitignore_that_is_a_symlink_is_not_followed(tmp_path: Path) -> None:
    make_repository(tmp_path)
    write(tmp_path, {"rules": "a\n", "a": ""})
    (tmp_path / ".gitignore").symlink_to("rules")
    assert left_out(tmp_path) == ignored_by_git(tmp_path, ["a"]) == set()
    (tmp_path / ".gpucloudignore").symlink_to("rules")
    assert left_out(tmp_path) == {"a"}


def test_an_ignore_file_that_is_none_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"a": ""})
    (tmp_path / ".gitignore").mkdir()
    os.mkfifo(tmp_path / ".gpucloudignore")
    assert left_out(tmp_path) == set()


def test_an_ignore_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".gpucloudignore").symlink_to(".gpucloudignore")
    with pytest.raises(SyncFailed, match=r"\.gpucloudignore") as failed:
        IgnoreRules.at(tmp_path)
    assert failed.value.why and failed.value.hint


@needs_git
def test_the_excludes_file_that_git_is_configured_to_use(tmp_path: Path, home: Path) -> None:
    make_repository(tmp_path)
    write(home, {"mine": "a\n!b\n", ".config/git/ignore": "c\n"})
    write(tmp_path, {"a": "", "b": "", "c": "", ".git/info/exclude": "b\n"})
    (tmp_path / ".git" / "config").write_text("[core]\n\texcludesFile = ~/mine\n")
    assert left_out(tmp_path) == ignored_by_git(tmp_path, ["a", "b", "c"]) == {"a", "b"}
    (tmp_path / ".git" / "config").write_text("[core]\n\texcludesFile =\n")
    assert left_out(tmp_path) == ignored_by_git(tmp_path, ["a", "b", "c"]) == {"b"}


def test_without_git_the_default_excludes_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"config/git/ignore": "a\n", "tree/a": "", "tree/b": ""})
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert left_out(tmp_path / "tree") == {"a"}


@needs_git
def test_a_work_tree_shares_the_exclude_file_of_its_repository(tmp_path: Path) -> None:
    main, other = tmp_path / "main", tmp_path / "other"
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (
        ["init", "-q", str(main)],
        ["-C", str(main), *who, "commit", "-q", "--allow-empty", "-m", "first"],
        ["-C", str(main), "worktree", "add", "-q", str(other)],
    ):
        subprocess.run([str(GIT), *command], check=True, capture_output=True)
    write(main, {".git/info/exclude": "a\n"})
    write(other, {"a": "", "b": ""})
    assert left_out(other) == ignored_by_git(other, ["a", "b"]) == {"a"}


@needs_git
@pytest.mark.parametrize(
    "value", ["", "= true", "= YES", "= on", "= 1", "= -2k", "= 0", "= no", "=", "= false"]
)
def test_whether_case_counts_is_what_git_takes_it_for(tmp_path: Path, value: str) -> None:
    make_repository(tmp_path)
    write(tmp_path, {"Data/x": "", "data2/x": "", ".gitignore": "data/\nDATA2/\n"})
    (tmp_path / ".git" / "config").write_text(f"[core]\n\tignoreCase {value}\n")
    assert left_out(tmp_path) == ignored_by_git(tmp_path, everything(tmp_path))


@needs_git
def test_in_a_submodule_its_own_rules_count(tmp_path: Path) -> None:
    outer, library = tmp_path / "outer", tmp_path / "library"
    who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "protocol.file.allow=always"]
    for command in (
        ["init", "-q", str(library)],
        ["-C", str(library), *who, "commit", "-q", "--allow-empty", "-m", "first"],
        ["init", "-q", str(outer)],
        ["-C", str(outer), *who, "submodule", "--quiet", "add", str(library), "inner"],
    ):
        subprocess.run([str(GIT), *command], check=True, capture_output=True)
    write(
        outer,
        {".gitignore": "*.bin\n", "a.bin": "", "inner/a.bin": "", "inner/b.log": "", "inner/d/b.log": ""},
    )
    write(outer, {".git/modules/inner/info/exclude": "/b.log\n"})
    assert left_out(outer) == left_out_by_git(outer) == {"a.bin", "inner/b.log"}
    # Ours are not git's, and so do not end where a repository does.
    write(outer, {".gpucloudignore": "*.log\n"})
    assert left_out(outer) == {"a.bin", "inner/b.log", "inner/d/b.log"}
    assert left_out(outer / "inner") == {"b.log"}


def test_a_folder_named_like_git_s_is_no_repository(tmp_path: Path) -> None:
    write(
        tmp_path,
        {".gitignore": "x\n", "sub/.git/kept": "", "sub/x": "", "other/.git": "no address", "other/x": ""},
    )
    assert left_out(tmp_path) == {"sub/x", "other/x"}


def test_what_a_rule_includes_again_is_told(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "*.log\n!b.log\n", "sub/.gpucloudignore": "!/c.log\nb.log\n"})
    paths = ["a.log", "b.log", "c.log", "d", "sub/b.log", "sub/c.log"]
    assert included(tmp_path, paths) == {"b.log", "sub/c.log"}
