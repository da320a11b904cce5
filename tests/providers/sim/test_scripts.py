"""The words of a market's script."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.errors import ConfigError
from gpucloud.model import Requirements
from gpucloud.provider import ProviderSettings
from gpucloud_sim import Sim, script
from gpucloud_sim.script import EXAMPLES, Script, parse

WORDS = {
    "": Script(),
    "stockout=2": Script(stockout=2),
    "quota=1": Script(quota=1),
    "boot=5s": Script(boot=5),
    "boot=0s": Script(boot=0),
    "boot=1m30s": Script(boot=90),
    "boot=0.5s": Script(boot=0.5),
    "queue=5s": Script(queue=5),
    "badhost=1": Script(badhost=1),
    "interrupt@40s": Script(interrupts=(40,)),
    "interrupt@40s,interrupt@1h": Script(interrupts=(40, 3600)),
    "interrupt@asked,interrupt@40s": Script(interrupts=("asked", 40)),
    "notice=3s": Script(notice=3),
    "price*1.2@30s": Script(prices=((Decimal("1.2"), 30),)),
    "price*2": Script(prices=((Decimal(2), 0),)),
    "price*2@1s,price*0.5@2s": Script(prices=((Decimal(2), 1), (Decimal("0.5"), 2))),
    "throttle=3": Script(throttle=3),
    "api500=2": Script(api500=2),
    "lost-reply=1": Script(lost_reply=1),
    "slow-list=3": Script(slow_list=3),
    "stuck=2": Script(stuck=2),
    "wronggpu=1": Script(wronggpu=1),
    "error-but-created=1": Script(error_but_created=1),
    "twice=1": Script(twice=1),
    "forget=2": Script(forget=2),
    "nolist=2": Script(nolist=2),
    "terminate500=2": Script(terminate500=2),
    "lost-terminate=1": Script(lost_terminate=1),
    "leak=1": Script(leak=1),
    "auth": Script(auth=True),
    "seed=7": Script(seed=7),
    " stockout=2 , boot=5s ,": Script(stockout=2, boot=5),
    "stockout=2,interrupt@40s,badhost=1,price*1.2@30s,throttle=3,api500=2,lost-reply=1,slow-list=3": Script(
        stockout=2,
        interrupts=(40,),
        badhost=1,
        prices=((Decimal("1.2"), 30),),
        throttle=3,
        api500=2,
        lost_reply=1,
        slow_list=3,
    ),
}

MISTAKES = {
    "stockot=2": "stockout=2",
    "Stockout=2": "stockout=2",
    "lost_reply=1": "lost-reply=2",
    "slowlist=3": "slow-list=2",
    "error_but_created=1": "error-but-created=2",
    "no-list=2": "nolist=2",
    "leaks=1": "leak=2",
    "terminate=2": "terminate500=2",
    "bot=5s": "boot=5s",
    "intterupt@5s": "interrupt@40s",
    "prices*2": "price*1.2@30s",
    "stockout": "stockout=2",
    "stockout=": "stockout=2",
    "stockout=many": "stockout=2",
    "stockout=-1": "stockout=2",
    "stockout=1.5": "stockout=2",
    "stockout@2": "stockout=2",
    "stockout = 2": "stockout=2",
    "interrupt=40s": "interrupt@40s",
    "interrupt@": "interrupt@40s",
    "price=2": "price*1.2@30s",
    "price*-1": "price*1.2@30s",
    "price*": "price*1.2@30s",
    "boot": "boot=5s",
    "auth=1": "auth",
    "boot=99999999999d": "boot=5s",
    "sim:stockout=2": "stockout=2",
}


@pytest.mark.parametrize(("text", "wanted"), WORDS.items())
def test_a_word_means_what_it_says(text: str, wanted: Script) -> None:
    assert parse(text) == replace(wanted, text=text)


@pytest.mark.parametrize(("text", "right"), MISTAKES.items())
def test_a_mistake_is_named_and_put_right(text: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"boot=1s,{text},seed=3")
    assert repr(text) in caught.value.message
    assert caught.value.why
    assert caught.value.hint == f"did you mean {right}?"


@pytest.mark.parametrize("text", ["boot=5", "boot=abc", "notice=-1s", "interrupt@soon", "price*2@later"])
def test_a_time_without_a_unit_says_how_times_are_written(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "is not a duration" in caught.value.why


@pytest.mark.parametrize("text", ["xyzzy", "=", "@5s", "🙂=1"])
def test_what_resembles_nothing_gets_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert "known are" in caught.value.why
    assert parse(caught.value.hint.partition("sim:")[2]).stockout == 2


@given(st.text("stockoutboprice@=*1.5s,auth-ld "))
def test_any_text_is_a_script_or_a_configuration_error(text: str) -> None:
    try:
        assert parse(text).text == text
    except ConfigError as error:
        assert error.hint


def test_the_documentation_knows_every_word_and_nothing_else() -> None:
    assert script.__doc__ is not None
    documented = re.findall(r"^``(.+?)``  ", script.__doc__, re.MULTILINE)
    assert {re.split(r"[=@*]", item)[0] for item in documented} == set(EXAMPLES)
    for item in (*documented, *EXAMPLES.values()):
        assert parse(item) != Script(item), f"{item} means nothing"


def test_the_readme_knows_every_word_but_those_that_make_nothing_fail() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text()
    part = text.partition("The simulated market takes a script")[2].partition("\n## ")[0]
    examples = re.findall(r"`(?:--provider sim:)?([^`]+)`", part)
    words = {re.split(r"[=@*]", item)[0] for example in examples for item in example.split(",")}
    assert words == set(EXAMPLES) - {"quota", "notice", "auth", "seed"}
    for example in examples:
        assert parse(example) != Script(example)


def test_a_wrong_script_is_an_error_of_the_verbs_and_not_of_building_the_provider(tmp_path: Path) -> None:
    provider = Sim(ProviderSettings("sim", tmp_path, script="stockot=1"))
    with pytest.raises(ConfigError, match="stockot"):
        list(provider.offers(Requirements()))


def test_it_is_configured_by_a_script_in_the_url_or_in_the_table(tmp_path: Path) -> None:
    assert not Sim.configured(ProviderSettings("sim", tmp_path))
    assert Sim.configured(ProviderSettings("sim", tmp_path, script="boot=1s"))
    assert Sim.configured(ProviderSettings("sim", tmp_path, table={"script": "boot=1s"}))
    with pytest.raises(ConfigError, match="stockot"):
        list(Sim(ProviderSettings("sim", tmp_path, table={"script": "stockot=1"})).offers(Requirements()))
