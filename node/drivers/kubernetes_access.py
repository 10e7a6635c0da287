"""Where the API server is, which CA vouches for it, and as whom it is asked: of a pod or of a kubeconfig.

A service account's token is replaced every hour or so and is read anew for each request; so are certificates
when their file has changed. What is asked is kubernetes_api.py's.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.config import ConfigError
from node.drivers.kubernetes_yaml import read_yaml

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
FILE_BYTES_MAX = 1_048_576
OPTIONS = (
    "namespace",  # where workloads run; default: the service account's, or the kubeconfig's
    "kubeconfig",  # a file; without it the service account of the pod is used
    "context",  # of the kubeconfig; default: its current one
    "api_server",  # https://host:port, in place of the one found
    "token_file",
    "ca_file",
    "report_url",  # where workloads reach this manager; they are given it as NODEPULSE_URL
    "machine",  # the name of the one machine of the cluster that workloads may run on
)
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(slots=True, kw_only=True)
class Access:
    """server: a URL without a slash at its end. `ca`, `certificate`, `key`: a file, or PEM as bytes.

    ca None: the system's. token: a file, or the text itself.
    """

    server: str
    namespace: str
    ca: Path | bytes | None = None
    token: Path | str | None = field(default=None, repr=False)
    certificate: Path | bytes | None = None
    key: Path | bytes | None = field(default=None, repr=False)
    _context: ssl.SSLContext | None = None
    _of: tuple[float, ...] = ()

    def bearer(self) -> str | None:
        """The token as it is now. OSError when its file cannot be read."""
        if isinstance(self.token, Path):
            return _read(self.token).decode("ascii", "replace").strip()
        return self.token

    def tls(self) -> ssl.SSLContext:
        """What connections are made with. OSError, ssl.SSLError when a file is missing or wrong."""
        files = (self.ca, self.certificate, self.key)
        changed = tuple(one.stat().st_mtime for one in files if isinstance(one, Path))
        if self._context is None or changed != self._of:
            context = ssl.create_default_context(
                cafile=str(self.ca) if isinstance(self.ca, Path) else None,
                cadata=self.ca.decode("ascii", "replace") if isinstance(self.ca, bytes) else None,
            )
            if self.certificate is not None and self.key is not None:
                _load_own(context, self.certificate, self.key)
            self._context, self._of = context, changed
        return self._context


def _load_own(context: ssl.SSLContext, certificate: Path | bytes, key: Path | bytes) -> None:
    """OpenSSL reads what is to be shown from files only: for that moment PEM is in one of mode 0600."""
    with tempfile.NamedTemporaryFile() as file:
        for part in (certificate, key):
            file.write(_read(part) if isinstance(part, Path) else part)
            file.write(b"\n")
        file.flush()
        context.load_cert_chain(file.name)


def find_access(options: Mapping[str, str], environment: Mapping[str, str]) -> Access:
    """The access that driver options and the environment name. ConfigError says what is missing."""
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigError(
            f"driver_options.{unknown[0]}: there is no such option; known: {', '.join(OPTIONS)}"
        )
    if options.get("kubeconfig"):
        access = _of_kubeconfig(Path(options["kubeconfig"]), options.get("context", ""))
    else:
        access = _of_pod(options, environment)
    if options.get("api_server"):
        access.server = options["api_server"].rstrip("/")
    if options.get("token_file"):
        access.token = Path(options["token_file"])
    if options.get("ca_file"):
        access.ca = Path(options["ca_file"])
    access.namespace = options.get("namespace") or access.namespace
    return _checked(access)


def _checked(access: Access) -> Access:
    if not _NAMESPACE.fullmatch(access.namespace):
        raise ConfigError(f"driver_options.namespace: not a namespace: {access.namespace!r}")
    try:
        parts = urlsplit(access.server)
        good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"driver_options: the API server has no https URL: {access.server!r}")
    try:
        access.bearer()
        access.tls()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"driver_options: {error}") from error
    return access


def _of_pod(options: Mapping[str, str], environment: Mapping[str, str]) -> Access:
    """The pod's own service account, as Kubernetes gives it to every container."""
    host, port = (environment.get(f"KUBERNETES_SERVICE_{one}", "") for one in ("HOST", "PORT"))
    if not options.get("api_server") and not (host and port):
        raise ConfigError("driver_options: no kubeconfig is named, and this is no pod of a cluster")
    account = Path(environment.get("NODEPULSE_SERVICE_ACCOUNT_DIR", ACCOUNT))
    try:
        namespace = options.get("namespace") or _read(account / "namespace").decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"driver_options.namespace: not given, and {error}") from error
    where = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{where}:{port}",
        namespace=namespace,
        ca=account / "ca.crt",
        token=account / "token",
    )


def _of_kubeconfig(path: Path, context: str) -> Access:
    try:
        whole = read_yaml(_read(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"driver_options.kubeconfig: {path}: {error}") from error
    try:
        chosen = _named(whole, "contexts", context or whole.get("current-context"), "context")
        cluster = _named(whole, "clusters", chosen.get("cluster"), "cluster")
        user = _named(whole, "users", chosen.get("user"), "user")
        return _of_entries(path.parent, cluster, user, str(chosen.get("namespace") or "default"))
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ConfigError(f"driver_options.kubeconfig: {path}: not a kubeconfig: {error}") from error


def _named(whole: Any, plural: str, name: Any, singular: str) -> dict[str, Any]:
    for entry in whole[plural]:
        if entry["name"] == name:
            found: dict[str, Any] = entry[singular]
            return found
    raise ConfigError(f"driver_options.kubeconfig: there is no {singular} {name!r} in it")


def _of_entries(beside: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str) -> Access:
    if str(cluster.get("insecure-skip-tls-verify")).lower() == "true":
        raise ConfigError("driver_options.kubeconfig: insecure-skip-tls-verify is refused; give its CA")
    for key in ("exec", "auth-provider", "username"):
        if user.get(key):
            raise ConfigError(f"driver_options.kubeconfig: user.{key}: only tokens and certificates are used")
    token_file = user.get("tokenFile")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        namespace=namespace,
        ca=_data(beside, cluster, "certificate-authority"),
        token=beside / token_file if token_file else user.get("token"),
        certificate=_data(beside, user, "client-certificate"),
        key=_data(beside, user, "client-key"),
    )


def _data(beside: Path, entry: dict[str, Any], name: str) -> Path | bytes | None:
    if entry.get(f"{name}-data"):
        return base64.b64decode(entry[f"{name}-data"], validate=True)
    return beside / entry[name] if entry.get(name) else None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise OSError(f"{path}: longer than {FILE_BYTES_MAX} bytes")
    return data
