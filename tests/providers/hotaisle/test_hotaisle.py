"""Hot Aisle against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import time_machine

from gpucloud import calls
from gpucloud.errors import (
    AuthError,
    BalanceExhausted,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Rejected,
    StoreError,
    Unsupported,
)
from gpucloud.model import Availability, InstanceState, Requirements, SshAddress, utcnow
from gpucloud.provider import LaunchSpec
from gpucloud.testing import ProviderConformance
from gpucloud_hotaisle import Hotaisle
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.rental.hotaisle import HotAisleCloud
from tests.harness.rental.market import Boot, Served, serving
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, cheapest, identity_in

EIGHT = "8x-mi300x-104c-1792g-12288g-xeon-platinum-8470"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(HotAisleCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Hotaisle:
    return adapter_at(Hotaisle, served, tmp_path)


class TestHotAisle(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Hotaisle) -> Hotaisle:
        return provider


def test_offers_are_told_as_hot_aisle_means_them(provider: Hotaisle) -> None:
    found = {offer.instance_type: offer for offer in provider.offers(Requirements())}
    eight = found[EIGHT]
    assert (eight.usd_per_hour, eight.amount, eight.currency) == (Decimal("15.92"), Decimal("15.92"), "USD")
    assert (str(eight.gpu), eight.gpu_count, eight.vcpus) == ("MI300X-OAM-192", 8, 104)
    assert (eight.memory_gib, eight.disk_gib, eight.minimum_s) == (Decimal(1792), Decimal(12288), 3600)
    assert (eight.availability, eight.availability_detail) == (Availability.AVAILABLE, "3 free")
    small = found["8c-32g-100g-xeon-platinum-8470"]
    assert (small.gpu, small.gpu_count, small.availability) == (None, 0, Availability.UNAVAILABLE)


def test_what_can_be_had_goes_back_as_it_came(served: Served, provider: Hotaisle, tmp_path: Path) -> None:
    provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    (asked,) = served.market.asked("POST", "/teams/acme/virtual_machines/")
    assert asked["gpus"] == [{"count": 8, "manufacturer": "AMD", "model": "MI300X"}]
    assert asked["cpus"]["frequency"] == 2_000_000_000


def test_a_machine_is_reached_where_it_is_told_from_outside(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    served.market.on_boot = lambda boot: SshAddress("203.0.113.9", 2201)
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    assert running(provider, made).ssh == SshAddress("203.0.113.9", 2201, "hotaisle", inside="10.0.2.100")


def test_a_machine_without_another_address_is_reached_at_its_own(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    served.market.on_boot = lambda boot: None
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    assert provider.get(made.ref).ssh == SshAddress("10.0.2.100", 22, "hotaisle")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("running", InstanceState.RUNNING),
        ("shut off", InstanceState.STOPPED),
        ("paused", InstanceState.STOPPED),
        ("in shutdown", InstanceState.STOPPING),
        ("crashed", InstanceState.FAILED),
        ("of tomorrow", InstanceState.UNKNOWN),
    ],
)
def test_states_are_in_our_words(
    served: Served, provider: Hotaisle, tmp_path: Path, word: str, state: InstanceState
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    served.market.things[made.ref.id].state = word
    assert provider.get(made.ref).state is state
    assert [instance.state for instance in provider.instances()] == [state]


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    theirs = {
        "type": "ssh-rsa",
        "public_key": "AAAAtheirs",
        "fingerprint": "SHA256:a/b",
        "comment": "me@home",
    }
    served.market.put("ssh-key", {}, bills=False, **theirs)
    key = identity_in(tmp_path)
    for _ in range(2):
        provider.launch(an_offer(provider, gpu_count=8), a_spec(key))
    assert len(served.market.asked("POST", "/user/ssh_keys/")) == 1
    for resource in list(provider.shared_resources()):
        provider.remove_shared(resource)
        provider.remove_shared(resource)
    assert [thing.more["fingerprint"] for thing in served.market.beside()] == ["SHA256:a/b"]


def test_a_key_that_another_launch_has_just_added_is_there(
    served: Served, provider: Hotaisle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, kind, key = HotAisleCloud.add_key, *identity_in(tmp_path).public.split()[:2]

    def late(market: HotAisleCloud, request: Any) -> Any:
        market.put("ssh-key", {}, bills=False, type=kind, public_key=key, fingerprint="SHA256:x", comment="c")
        return method(market, request)

    late.routes = method.routes  # type: ignore[attr-defined]
    monkeypatch.setattr(HotAisleCloud, "add_key", late)
    provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    assert len(served.market.beside()) == 1


def test_a_machine_is_ended_before_its_minimum_is_over(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    provider.terminate(provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path))).ref)
    assert not served.market.billing()


def test_a_choice_of_image_is_refused_before_anything_is_made(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    offer = an_offer(provider, gpu_count=8)
    with pytest.raises(Unsupported):
        provider.launch(offer, a_spec(identity_in(tmp_path), image="ubuntu"))
    assert not served.market.asked("POST", ".*")


@pytest.mark.parametrize("changes", [{"usd_per_hour": Decimal(15)}, {"instance_type": "sold-out"}])
def test_an_offer_that_is_no_more_as_it_was_is_not_taken(
    served: Served, provider: Hotaisle, tmp_path: Path, changes: dict[str, Any]
) -> None:
    offer = replace(an_offer(provider, gpu_count=8), **changes)
    with pytest.raises(NoCapacity) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert ("the price of" in refused.value.message) == ("usd_per_hour" in changes)
    assert not served.market.asked("POST", ".*")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, QuotaExceeded),
        (402, BalanceExhausted),
        (403, AuthError),
        (404, NoCapacity),
        (422, Rejected),
    ],
)
def test_hot_aisle_says_no_by_its_statuses(
    served: Served, provider: Hotaisle, tmp_path: Path, status: int, kind: type[ProviderError]
) -> None:
    offer = an_offer(provider, gpu_count=8)
    served.market.refuse(Verb.CREATE, status, "No.")
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_text == "No."
    assert not refused.value.outcome_unknown
    assert not list((tmp_path / "hotaisle" / "claims").glob("*.json"))


def test_a_wrong_key_is_no_quota(served: Served, tmp_path: Path) -> None:
    with pytest.raises(AuthError):
        list(adapter_at(Hotaisle, served, tmp_path, api_key="wrong").offers(Requirements()))


def test_a_key_is_checked_before_it_is_stored(served: Served, tmp_path: Path) -> None:
    stranger = adapter_at(Hotaisle, served, tmp_path, api_key="")
    assert stranger.check_credentials(served.market.credentials) == "me@example.com"
    with pytest.raises(AuthError):
        stranger.check_credentials({"api_key": "another"})


def test_the_team_is_that_of_the_settings(served: Served, tmp_path: Path) -> None:
    assert list(adapter_at(Hotaisle, served, tmp_path, team="acme").offers(Requirements()))
    assert not served.market.asked("GET", "/teams/")


def test_of_several_teams_the_person_chooses(
    served: Served, provider: Hotaisle, monkeypatch: pytest.MonkeyPatch
) -> None:
    several: list[dict[str, Any]] = [
        {"handle": name, "name": name, "roles": [], "effective_roles": []} for name in ("acme", "b")
    ]
    monkeypatch.setattr(HotAisleCloud, "teams", _answering(HotAisleCloud.teams, several))
    with pytest.raises(Rejected) as refused:
        list(provider.offers(Requirements()))
    assert refused.value.hint == "set team below [providers.hotaisle]"


def _answering(method: Any, body: Any) -> Any:
    def told(self: HotAisleCloud, request: Any) -> Any:
        return body

    told.routes = method.routes  # type: ignore[attr-defined]
    return told


# -- between a create and its description ------------------------------------------------------------


def fails_to_launch(provider: Hotaisle, folder: Path, **given: Any) -> str:
    """Launch while something strikes; returns the token."""
    spec = a_spec(identity_in(folder), **given)
    with pytest.raises(ProviderError) as failed:
        provider.launch(an_offer(provider, gpu_count=8), spec)
    assert failed.value.outcome_unknown
    return spec.token


def somebody_elses(served: Served, description: str = "") -> str:
    """A machine of the same kind that a colleague makes; returns its id."""
    asked = served.market.asked("POST", "/teams/acme/virtual_machines/")[0]
    made = served.market.make(Boot(served.market.new_id(), ()), asked, {}, description=description)
    return str(made.id)


@pytest.mark.parametrize("trouble", [Trouble.LOST_REPLY, Trouble.ERROR_BUT_DONE, Trouble.TRUNCATED], ids=str)
def test_a_create_whose_reply_is_lost_is_found_by_the_next_listing(
    served: Served, provider: Hotaisle, tmp_path: Path, trouble: Trouble
) -> None:
    served.faults.strike(Fault(Verb.CREATE, trouble))
    token = fails_to_launch(provider, tmp_path)
    anew = adapter_at(Hotaisle, served, tmp_path)
    assert [(one.token, one.cluster) for one in anew.instances()] == [(token, "test")]
    assert [machine.token for machine in served.market.instances()] == [token]


def test_a_machine_that_could_not_be_described_is_described_by_the_next_listing(
    served: Served, provider: Hotaisle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, spec = an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path))
    method = HotAisleCloud.describe
    monkeypatch.setattr(HotAisleCloud, "describe", _answering_with_id(method, (500, "broken")))
    with pytest.raises(ProviderError) as failed:
        provider.launch(offer, spec)
    assert failed.value.outcome_unknown
    monkeypatch.setattr(HotAisleCloud, "describe", method)
    colleague = somebody_elses(served)
    assert [one.token for one in provider.instances()] == [spec.token]
    assert not served.market.things[colleague].token


def _answering_with_id(method: Any, answer: Any) -> Any:
    def told(self: HotAisleCloud, request: Any, id: str) -> Any:
        return answer

    told.routes = method.routes  # type: ignore[attr-defined]
    return told


def test_a_machine_that_was_there_before_or_is_described_is_never_taken(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    provider.terminate(provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path))).ref)
    before = somebody_elses(served)
    served.faults.strike(Fault(Verb.CREATE, Trouble.LOST_REPLY))
    token = fails_to_launch(provider, tmp_path)
    described = somebody_elses(served, "for the demo")
    (found,) = provider.instances()
    assert found.token == token
    assert found.ref.id not in {before, described}


def test_nothing_is_taken_when_somebody_else_s_cannot_be_told_apart(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    served.faults.strike(Fault(Verb.CREATE, Trouble.LOST_REPLY))
    token = fails_to_launch(provider, tmp_path)
    colleague = somebody_elses(served)
    with pytest.raises(Rejected) as unsure:
        list(provider.instances())
    assert colleague in unsure.value.why
    served.market.things[colleague].more["description"] = "for the demo"
    assert [one.token for one in provider.instances()] == [token]


def test_launches_at_the_same_time_do_not_mix_their_machines_up(served: Served, tmp_path: Path) -> None:
    key = identity_in(tmp_path)
    specs = [a_spec(key, rank=rank) for rank in range(4)]

    def launch(spec: LaunchSpec) -> tuple[str | None, str]:
        # Each is a process of its own.
        mine = adapter_at(Hotaisle, served, tmp_path)
        return spec.token, mine.launch(an_offer(mine, gpu_count=8), spec).ref.id

    with ThreadPoolExecutor(4) as threads:
        launched = set(threads.map(launch, specs))
    found = {(one.token, one.ref.id) for one in adapter_at(Hotaisle, served, tmp_path).instances()}
    assert found == launched
    assert len(served.market.instances()) == 4


def test_a_create_that_made_nothing_is_forgotten_in_time(
    served: Served, provider: Hotaisle, tmp_path: Path
) -> None:
    served.faults.strike(Fault(Verb.CREATE, Trouble.ERROR))
    fails_to_launch(provider, tmp_path)
    assert not list(provider.instances())
    with time_machine.travel(utcnow() + timedelta(hours=1)):
        assert not list(provider.instances())
    assert not list((tmp_path / "hotaisle" / "claims").glob("*.json"))


def test_notes_that_cannot_be_read_are_told(served: Served, provider: Hotaisle, tmp_path: Path) -> None:
    served.faults.strike(Fault(Verb.CREATE, Trouble.LOST_REPLY))
    fails_to_launch(provider, tmp_path)
    (note,) = (tmp_path / "hotaisle" / "claims").glob("*.json")
    note.write_text("{}")
    with pytest.raises(StoreError):
        list(provider.instances())


def test_a_rehearsal_claims_no_machine(served: Served, provider: Hotaisle, tmp_path: Path) -> None:
    offer, key = cheapest(provider), identity_in(tmp_path)
    # The key of the user would be what is kept back first.
    provider.launch(offer, a_spec(key))
    calls.listen(lambda call: None, rehearse=True)
    try:
        with pytest.raises(calls.KeptBack):
            provider.launch(offer, a_spec(key))
    finally:
        calls.listen(None)
    assert not list(provider.settings.state_dir.rglob("*.json"))
