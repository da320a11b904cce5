"""Provider keys: where people have them already, and our own file of them, which nobody else may read."""

from gpucloud.credentials.file import FILE, KEYRING, CredentialFile
from gpucloud.credentials.lookup import MISSING, Credentials, source_of
from gpucloud.credentials.paths import shown

__all__ = ["FILE", "KEYRING", "MISSING", "CredentialFile", "Credentials", "shown", "source_of"]
