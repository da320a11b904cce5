"""What the user's own SSH configuration has a meaning for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucloud.remote.ssh_names import OwnNames


def own(folder: Path, text: str) -> OwnNames:
    config = folder / "config"
    config.write_text(text)
    return OwnNames(config, skip=folder / "ours")


@pytest.mark.parametrize(
    "text",
    [
        "Host train\n",
        "host other train\n",
        "HOST=train\n",
        "  Host = other train # why\n",
        'Host "train"\r\n',
        "Host tr*\n",
        "Host t???n\n",
        "Match all\n  User x\nHost train",
    ],
)
def test_a_name_is_the_user_s_that_a_pattern_of_hers_means(home: Path, text: str) -> None:
    assert own(home, text).have("train")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Host *\n",
        "Host training\n",
        "# Host train\n",
        "HostName train\n",
        "Host !train tr*\n",
        "Host ??*\n",
        "Host\n",
        "Host 'train\n\x00",
    ],
)
def test_what_means_every_name_or_another_takes_none(home: Path, text: str) -> None:
    assert not own(home, text).have("train")


def test_included_files_count_each_once_but_not_ours(home: Path) -> None:
    ssh = home / ".ssh"
    (ssh / "conf.d").mkdir(parents=True)
    (ssh / "conf.d" / "a").write_text("Host a\nInclude ~/.ssh/conf.d/* config\n")
    (ssh / "conf.d" / "b").write_text("Host b\nInclude /nowhere/* ~nobody-has-this-name/x ''\n")
    (ssh / "conf.d" / "folder").mkdir()
    (home / "ours").write_text("Host c\n")
    config = ssh / "config"
    config.write_text(f'Include conf.d/*\nInclude "{home}/ours"\nHost d\n')
    names = OwnNames(config, skip=home / "ours")
    assert [names.have(name) for name in "abcd"] == [True, True, False, True]


def test_a_config_that_is_not_there_or_cannot_be_read_has_no_names(home: Path) -> None:
    assert not OwnNames(home / "none", skip=home / "ours").have("a")
    assert not OwnNames(home, skip=home / "ours").have("a")
