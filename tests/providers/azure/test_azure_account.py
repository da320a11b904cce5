"""Who asks Azure, and for which subscription."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import AuthError, ConfigError
from gpucloud.model import InstanceRef
from gpucloud.provider import ProviderSettings
from gpucloud_azure import Azure
from gpucloud_azure.account import ResourceId
from tests.harness.azure import Cloud, Server

Make = Callable[..., Azure]


def profile(home: Path, *subscriptions: dict[str, Any]) -> None:
    """What ``az login`` leaves behind, with the mark at its beginning."""
    (home / ".azure").mkdir()
    text = json.dumps({"installationId": "x", "subscriptions": list(subscriptions)})
    (home / ".azure" / "azureProfile.json").write_text(text, "utf-8-sig")


def one(name: str, **other: Any) -> dict[str, Any]:
    """One subscription in there."""
    return {"id": name, "state": "Enabled", "isDefault": True, "tenantId": "t", **other}


def configured(home: Path, environ: dict[str, str] | None = None, **table: Any) -> bool:
    """Whether somebody with this home, environment and table is."""
    return Azure.configured(ProviderSettings("azure", home, table, {"HOME": str(home), **(environ or {})}))


def test_nobody_has_signed_in_who_has_left_no_trace(tmp_path: Path) -> None:
    assert not configured(tmp_path)


@pytest.mark.parametrize(
    "secret", ["AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE"]
)
def test_variables_are_a_login(tmp_path: Path, secret: str) -> None:
    assert configured(tmp_path, {"AZURE_CLIENT_ID": "c", secret: "s"})
    assert not configured(tmp_path, {"AZURE_CLIENT_ID": "c"})


def test_az_login_is_a_login(tmp_path: Path) -> None:
    profile(tmp_path, one("S"))
    assert configured(tmp_path)


def test_a_subscription_in_the_settings_is_a_login(tmp_path: Path) -> None:
    assert configured(tmp_path, subscription="S")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"subscriptions": [7]}', '{"subscriptions": null}'])
def test_a_broken_file_of_az_is_no_login(tmp_path: Path, text: str) -> None:
    (tmp_path / ".azure").mkdir()
    (tmp_path / ".azure" / "azureProfile.json").write_text(text)
    assert not configured(tmp_path)


def test_the_adapter_is_loaded_without_azure_s_libraries_and_what_only_some_verbs_need() -> None:
    script = (
        "import sys, pathlib; from gpucloud_azure import Azure;"
        "from gpucloud.provider import ProviderSettings;"
        "Azure.configured(ProviderSettings('azure', pathlib.Path('/nowhere')));"
        "print(' '.join(name for name in sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    environ = {"PYTHONPATH": f"{root}:{root / 'providers'}"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True
    )
    loaded = set(done.stdout.split())
    assert not {"azure", "httpx", "pydantic", "msal"} & loaded
    own = {name for name in loaded if name.startswith("gpucloud_azure.")}
    assert own == {f"gpucloud_azure.{name}" for name in ("account", "adapter", "catalog", "errors")}


@pytest.mark.parametrize("where", ["table", "variable", "profile"])
def test_the_subscription_is_the_one_that_was_chosen(
    server: Server, make: Make, tmp_path: Path, where: str
) -> None:
    environ = {key: value for key, value in server.environ.items() if key != "AZURE_SUBSCRIPTION_ID"}
    environ["HOME"] = str(tmp_path)
    others = [one("other", isDefault=False), one("old", state="Disabled")]
    if where == "profile":
        profile(tmp_path, *others, one("S"))
    if where == "variable":
        environ["AZURE_SUBSCRIPTION_ID"] = "S"
    azure = make(environ, **({"subscription": "S"} if where == "table" else {}))
    assert list(azure.instances()) == []


def test_without_a_subscription_it_is_told_how_to_choose_one(
    server: Server, make: Make, tmp_path: Path
) -> None:
    environ = {key: value for key, value in server.environ.items() if key != "AZURE_SUBSCRIPTION_ID"}
    with pytest.raises(ConfigError) as failure:
        list(make({**environ, "HOME": str(tmp_path)}).instances())
    assert "az account set" in failure.value.hint


def test_a_subscription_that_is_not_there_is_told(make: Make) -> None:
    with pytest.raises(AuthError) as refused:
        list(make(subscription="elsewhere").instances())
    assert refused.value.vendor_code == "SubscriptionNotFound"


def test_a_secret_that_is_refused_says_how_to_sign_in(server: Server, make: Make) -> None:
    with pytest.raises(AuthError) as refused:
        list(make({**server.environ, "AZURE_CLIENT_SECRET": "wrong"}).instances())
    assert "AADSTS7000215" in refused.value.why
    assert "az login" in refused.value.hint
    assert "wrong" not in str(refused.value) + refused.value.why


def test_who_has_nothing_is_told_how_to_sign_in(
    server: Server, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The chain of Azure's own library looks at the environment of the process.
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "IDENTITY_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AuthError) as refused:
        list(make({"HOME": str(tmp_path), "AZURE_SUBSCRIPTION_ID": "S"}).instances())
    assert "az login" in refused.value.hint


def test_one_token_serves_until_it_is_nearly_over(
    cloud: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = make()
    for _ in range(2):
        assert list(azure.instances()) == []

    def asked() -> int:
        return sum(path.endswith("/oauth2/v2.0/token") for _, path in cloud.requests)

    assert asked() == 1
    ahead = time.time() + 3400
    monkeypatch.setattr("gpucloud_azure.account.time.time", lambda: ahead)
    assert list(azure.instances()) == []
    assert asked() == 2


def test_without_azure_s_libraries_it_is_told_what_to_install(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ConfigError) as failure:
        list(make().instances())
    assert failure.value.hint == "pip install 'gpucloud[azure]'"


def test_without_the_clients_nothing_can_be_ended_but_it_is_told_what_to_install(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "azure.mgmt.compute", None)
    azure = make()
    name = "/subscriptions/S/resourceGroups/gpucloud/providers/Microsoft.Compute/virtualMachines/gc-1"
    assert list(azure.instances()) == []
    with pytest.raises(ConfigError) as failure:
        azure.terminate(InstanceRef(name))
    assert failure.value.hint == "pip install 'gpucloud[azure]'"


def test_an_id_is_read_whatever_the_case_of_its_group() -> None:
    found = ResourceId.parse("/SUBSCRIPTIONS/s/resourcegroups/MINE/providers/Microsoft.Compute/disks/D1")
    assert found == ("mine", "Microsoft.Compute/disks", "D1")
    assert ResourceId.parse("gc-1") is None
    assert ResourceId.parse("/subscriptions/s/resourceGroups/mine") is None
