"""Settings that every server has, and the one place where they are read: flags, then environment, then file.

Read once, in a service's `__main__`, through `load_settings`; nothing deeper down looks at the environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)


class ServerSettings(BaseSettings):
    """How a service listens, protects itself and stops."""

    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback needs TLS or --insecure.")
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Port of the Prometheus endpoint; 0 switches it off.")
    insecure: bool = Field(
        False, description="Listen in plaintext on any address: for a mesh whose sidecar does TLS, or a closed network."
    )
    tls_cert_file: Path | None = Field(None, description="PEM certificate chain of this server.")
    tls_key_file: Path | None = Field(None, description="PEM private key of this server.")
    tls_client_ca_file: Path | None = Field(
        None, description="PEM certificates of those who sign client certificates; set: clients must have one (mTLS)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")
    log_format: Literal["json", "console"] = Field("json", description="json for machines, console for people.")
    default_deadline_s: float = Field(5.0, gt=0, le=600, description="Deadline, in seconds, of a call without one.")
    max_message_bytes: int = Field(16 << 20, ge=1 << 16, le=256 << 20, description="Bytes of one request message.")
    max_concurrent_rpcs: int = Field(
        1024, ge=1, le=100_000, description="Calls served at once; more are refused with RESOURCE_EXHAUSTED."
    )
    max_streams: int = Field(
        256, ge=1, le=100_000, description="Of those, streams of requests; more are refused with RESOURCE_EXHAUSTED."
    )
    stream_idle_s: float = Field(
        300.0, gt=0, le=86_400, description="Seconds without a request after which an open stream is ended."
    )
    max_wait_s: float = Field(
        0.2, ge=0, le=60, description="Longest wait of a call, in seconds, until it is its turn; else it is refused."
    )
    max_connection_age_s: float = Field(
        1800.0, gt=0, description="Seconds after which a connection is closed gracefully, so that clients spread anew."
    )
    drain_delay_s: float = Field(
        2.0, ge=0, le=300, description="Seconds between NOT_SERVING and refusing calls, for load balancers to notice."
    )
    grace_s: float = Field(20.0, ge=0, le=600, description="Seconds that running calls get to finish at a stop.")
    exit_with_parent: bool = Field(
        False,
        description="Stop, as at SIGTERM, when standard input ends: for a parent that holds the other end of a pipe.",
    )

    @model_validator(mode="after")
    def _security_is_consistent(self) -> Self:
        faults = []
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            faults.append("tls_cert_file and tls_key_file go together: set both or none")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            faults.append("tls_client_ca_file needs tls_cert_file and tls_key_file")
        for name in ("tls_cert_file", "tls_key_file", "tls_client_ca_file"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                faults.append(f"{name}: no file at {path}")
        if not is_loopback(self.host) and self.tls_cert_file is None and not self.insecure:
            faults.append(
                f"host {self.host} is not loopback: give tls_cert_file and tls_key_file, or --insecure when something "
                "else (a mesh sidecar) encrypts"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and arguments first, then the environment, then the file."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)


_SOURCES = (
    "Settings come from these flags, then from variables ({prefix}PORT for --port), then from a YAML file named by "
    "--config FILE (port: 50051)."
)
S = TypeVar("S", bound=ServerSettings)


def service_settings_config(service: str) -> SettingsConfigDict:
    """The model_config of a service's settings: variables `ZHIYIN_<SERVICE>_<FIELD>`, unknown keys refused."""
    return SettingsConfigDict(env_prefix=f"ZHIYIN_{service}_", extra="forbid", cli_kebab_case=True)


def load_settings(cls: type[S], argv: Sequence[str]) -> S:
    """Reads the settings of a service; ends the process with code 2 and every fault when they are wrong.

    Args:
        cls: The settings class of the service.
        argv: Flags, such as `["--port", "50051", "--config", "encoder.yaml"]`.
    """
    rest, config = _take_config_flag(list(argv))
    if config is not None and (unusable := _config_fault(config)):
        print(f"--config {config}: {unusable}", file=sys.stderr)
        raise SystemExit(2)
    for warning in unknown_variables(cls, os.environ):
        print(warning, file=sys.stderr)
    configured = _with_file(cls, config)
    configured.__doc__ = f"{cls.__doc__}\n\n{_SOURCES.format(prefix=_prefix(cls))}"
    cli: CliSettingsSource[S] = CliSettingsSource(
        configured,
        cli_prog_name=f"python -m {cls.__module__.split(chr(46))[0]}",
        cli_parse_args=rest,
        cli_implicit_flags=True,
        cli_kebab_case=True,
        cli_exit_on_error=True,
    )
    try:
        settings: S = configured(_cli_settings_source=cli)
        return settings
    except ValidationError as error:
        for fault in _faults(error):
            print(fault, file=sys.stderr)
        raise SystemExit(2) from None


def read_settings(cls: type[S], config: Path | None, given: Mapping[str, Any]) -> tuple[S | None, list[str]]:
    """The settings as a service would read them, for tools that look at them: nothing is printed, nothing ends.

    Args:
        cls: The settings class of the service.
        config: Its file.
        given: What its flags say.

    Returns:
        The settings, or None and every fault.
    """
    if config is not None and (unusable := _config_fault(config)):
        return None, [f"--config {config}: {unusable}"]
    try:
        return _with_file(cls, config)(**given), []
    except ValidationError as error:
        return None, _faults(error)


def _with_file(cls: type[S], config: Path | None) -> type[S]:
    fields = {
        "model_config": SettingsConfigDict(**{**cls.model_config, "yaml_file": config}),
        "__module__": cls.__module__,
    }
    return type(cls.__name__, (cls,), fields)


def _faults(error: ValidationError) -> list[str]:
    named = [(".".join(str(part) for part in fault["loc"]), fault["msg"]) for fault in error.errors()]
    return [f"setting {name or '(together)'}: {why}" for name, why in named]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def unknown_variables(cls: type[ServerSettings], environment: Mapping[str, str]) -> list[str]:
    """A warning for each variable with the prefix of a service that is no setting of it: often a misspelt one.

    Not an error: other programs put variables there, such as Kubernetes for a service of that name.
    """
    prefix = _prefix(cls)
    known = {f"{prefix}{name}".upper() for name in cls.model_fields} | {f"{prefix}ADDRESS"}
    warnings = []
    for name in sorted(environment):
        if name.upper().startswith(prefix) and name.upper() not in known:
            near = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"warning: the variable {name} is no setting of this service and counts for nothing{hint}")
    return warnings


def _prefix(cls: type[ServerSettings]) -> str:
    return str(cls.model_config.get("env_prefix", ""))


def _config_fault(config: Path) -> str | None:
    if not config.is_file():
        return "no such file"
    try:
        read = yaml.safe_load(config.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return "is not UTF-8"
    except yaml.YAMLError as error:
        return f"is not YAML: {' '.join(str(error).split())}"
    if read is not None and not (isinstance(read, dict) and all(isinstance(key, str) for key in read)):
        return "has to hold settings, one a line: `name: value`"
    return None


def _take_config_flag(argv: list[str]) -> tuple[list[str], Path | None]:
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                print("--config: name a file", file=sys.stderr)
                raise SystemExit(2)
            return argv[:i] + argv[i + 2 :], Path(argv[i + 1])
        if word.startswith("--config="):
            return argv[:i] + argv[i + 1 :], Path(word.split("=", 1)[1])
    return argv, None
