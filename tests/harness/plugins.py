"""Third-party adapters as a user may have installed them."""

from __future__ import annotations

from pathlib import Path


def write_plugin(folder: Path, name: str, source: str) -> None:
    """Put a package with the adapter ``name`` into a folder, which is to be on ``PYTHONPATH``."""
    info = folder / f"gpucloud_{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: gpucloud-{name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[gpucloud.providers]\n{name} = gpucloud_{name}:{name.capitalize()}\n"
    )
    (folder / f"gpucloud_{name}.py").write_text(source)


ACME = """
from gpucloud.provider import Credential, FileFormat, VendorFile
from gpucloud_local import Local

API_KEY = Credential(
    "api_key",
    ("ACME_API_KEY", "ACME_TOKEN"),
    (VendorFile("~/.acme/config.toml", FileFormat.TOML, "default.api_key"),),
    "https://acme.example/keys",
)


class Acme(Local):
    name = "acme"
    credentials = (API_KEY,)

    @classmethod
    def configured(cls, settings):
        return settings.credential_source(API_KEY) is not None

    def check_credentials(self, values):
        with self._http(values["api_key"]) as http:
            return http.get("/account")["name"]

    def offers(self, requirements):
        with self._opened() as http:
            http.get("/offers", params={"gpus": len(requirements.gpus)})
        yield from super().offers(requirements)

    def launch(self, offer, spec):
        with self._opened() as http:
            http.post("/instances", json={"tags": spec.tags, "key": spec.public_key, "image": spec.image})
        return super().launch(offer, spec)

    def instances(self):
        with self._opened() as http:
            http.get("/instances")
        return super().instances()

    def terminate(self, ref):
        with self._opened() as http:
            http.delete("/instances/" + ref.id)
        super().terminate(ref)

    def _opened(self):
        return self._http(self.settings.credential(API_KEY))

    def _http(self, key):
        url = self.settings.table["url"]
        return self.client(self.name, url, headers={"Authorization": f"Bearer {key}"}, deadline_s=10)
"""
"""A vendor with a key, which rents out this machine and tells the server at ``providers.acme.url`` of it."""
