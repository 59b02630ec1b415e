"""Every setting of the gateway, with its safe default, and what they must be to each other.

`settings_file` reads them. Defaults that stand on conflicting sources about the control unit name the section of the field
notes that they settle (etims.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.connection_guard import Limits
from gateway.counter_settings import (
    CaptureSettings,
    DisplaySettings,
    PrinterSettings,
    PrintingSettings,
    ReceiptSettings,
    ReportSettings,
    ScaleSettings,
    ScannerSettings,
    Seconds,
    Section,
    SerialTillSettings,
    check_devices,
    check_logo,
    check_ports,
    check_printers,
    ports_of,
)
from gateway.mpesa_settings import MpesaSettings, check_mpesa

Port = Annotated[int, Field(ge=1, le=65535)]


class BranchSettings(Section):
    """Whose receipts these are."""

    pin: Annotated[str, Field(pattern=r"^[A-Z][0-9]{9}[A-Z]$")]
    trade_name: Annotated[str, Field(min_length=1, max_length=60)]
    branch_id: Annotated[str, Field(pattern=r"^[0-9]{2}$")] = "00"
    address: Annotated[str, Field(max_length=200)] = ""
    city: Annotated[str, Field(max_length=60)] = ""
    # Sandbox receipts only resolve on KRA's sandbox portal (etims.md 4.3).
    environment: Literal["sandbox", "production"] = "sandbox"
    qr_base_url: str | None = None


class UnitSettings(Section):
    """The control unit (VSCU) and what differs between its builds."""

    serial: Annotated[str, Field(min_length=1, max_length=100)]
    host: Literal["in-process", "external"] = "in-process"
    jar: Path | None = None
    directory: Path | None = None
    port: Port = 8088
    url: str | None = None
    java_home: Path | None = None
    heap_mb: Annotated[int, Field(ge=32, le=4096)] = 64
    jvm_options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    answer_timeout_s: Seconds = 30
    # The unit ends a request within this time. Until then no operator can declare a sale not signed.
    at_work_s: Annotated[float, Field(gt=0, le=3600)] = 90
    # Whether it certainly does. False: only a restart of the unit ends its work (one-receipt.md, "At rest").
    # Default: true in process, where the gateway is the unit's only client; false for an external unit.
    at_work_bounded: bool | None = None
    # While it reaches KRA, what the unit has signed is on KRA's portal within this time (A9 of evidence.md; its
    # timer is not published). Until then no operator can declare a sale not signed.
    upload_s: Annotated[float, Field(ge=0, le=3600)] = 60
    probe_timeout_s: Seconds = 3
    # A unit that does not answer by then is served without, so that the status page exists.
    start_timeout_s: Seconds = 30
    # etims.md 5.6: live Kenyan integrations send taxblAmt without the tax; RRA's samples with it.
    taxable_amount: Literal["exclusive", "inclusive"] = "exclusive"
    # etims.md 2.3: null is accepted by most; one live note says A000000000D was needed.
    walk_in_pin: str | None = None
    walk_in_name: str | None = None
    # etims.md 5.7: 02 (Odoo KE) or 05 (RRA).
    credit_note_status: Literal["02", "05"] = "02"
    success_codes: tuple[str, ...] = ("000", "0", "00", "0000")
    duplicate_codes: tuple[str, ...] = ("924", "994")
    # Codes that this build gives before it signs anything (A4; etims.md 3.2): "not as it is" and "not now".
    # A code stands on a list only with a source; the lists of `vscu/codes.py`.
    refused_codes: tuple[str, ...] = (
        *("834", "881", "882", "883", "884", "893", "895", "910", "911", "912", "913"),
        *("930", "931", "932", "933", "934", "935"),
    )
    not_ready_codes: tuple[str, ...] = ("836", "891", "892", "E11", "11")
    package_unit: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,5}$")] = "NT"
    quantity_unit: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,5}$")] = "U"
    item_class: Annotated[str, Field(pattern=r"^[0-9]{1,10}$")] = "42294957"
    first_invoice_no: Annotated[int, Field(ge=1)] = 1
    cashier_id: Annotated[str, Field(min_length=1, max_length=20)] = "gateway"
    cashier_name: Annotated[str, Field(min_length=1, max_length=60)] = "POS gateway"
    # Local path names differ between builds of the same code base (etims.md 2.1).
    paths: dict[str, str] = Field(default_factory=dict)
    read_back: bool = False
    # What is assumed of the build (docs/internals/evidence.md); `pos-gateway unit-test` proves it.
    # A1: it never signs one invoice number twice, and decides that when it signs. False: no resend.
    resend: bool = False
    # A3: a restarted unit does not sign what it had only accepted. False: a restart proves nothing.
    forgets_on_restart: bool = False
    # Each request carries its sale's id in `remark`, so that a receipt read back is known to be its own.
    mark_sales: bool = True
    # etims.md 12, item 9: for a unit that never gives its ids. Its own, once given, comes first.
    sdc_id: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")] | None = None
    mrc_no: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")] | None = None
    # The unit's own database as a witness (etims.md 8.3); no Kenyan names are published.
    database: Path | None = None
    database_query: str | None = None
    database_counter_query: str | None = None

    @property
    def work_is_bounded(self) -> bool:
        if self.at_work_bounded is None:
            return self.host == "in-process"
        return self.at_work_bounded

    @property
    def base_url(self) -> str:
        return (self.url or f"http://127.0.0.1:{self.port}").rstrip("/")


class ApiSettings(Section):
    """The tills' side."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    body_limit_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 1_048_576
    # Longer than the unit's answer (about 2 s live), shorter than a till's patience.
    wait_s: Seconds = 25
    # itemSeq has three digits (etims.md 8.2).
    max_lines: Annotated[int, Field(ge=1, le=999)] = 999
    queue_max: Annotated[int, Field(ge=1)] = 500
    # A till that sends no key: the same till receipt number and body again within this time is taken
    # for a repeat. 0: every till must send a key.
    keyless_window_s: Annotated[float, Field(ge=0, le=604_800)] = 86_400
    # Event streams of pages in all and of one address, which anybody on the LAN may open; each till has its own.
    event_streams_max: Annotated[int, Field(ge=1)] = 32
    event_streams_per_address: Annotated[int, Field(ge=1)] = 4
    event_streams_per_till: Annotated[int, Field(ge=1)] = 4
    # Connections in all and of one address, far below LimitNOFILE. Beyond: 503 TOO_MANY_CONNECTIONS.
    connections_max: Annotated[int, Field(ge=16, le=4096)] = 512
    connections_per_address: Annotated[int, Field(ge=4, le=4096)] = 64
    # A request's head comes whole within so long; a connection without a request is kept for so long.
    head_timeout_s: Seconds = 10
    keep_alive_s: Seconds = 75

    @property
    def limits(self) -> Limits:
        return Limits(
            per_address=self.connections_per_address,
            total=self.connections_max,
            head_s=self.head_timeout_s,
            keep_alive_s=self.keep_alive_s,
        )


class TillSettings(Section):
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
    name: str = ""
    printer: str | None = None
    # Its receipt numbers start again within a day: the same number and body under another key is another sale.
    reuses_numbers: bool = False


class StoreSettings(Section):
    directory: Path
    readers: Annotated[int, Field(ge=1, le=8)] = 2
    busy_timeout_ms: Annotated[int, Field(ge=0)] = 5000
    # Room that is given to the store when the disk is full; 32 MB are some 5,000 sales (measured: 6.5 kB each).
    ballast_mb: Annotated[int, Field(ge=0, le=1024)] = 32
    # Where the second record of every key lies; another disk is best. Default: the unit's folder, where it is known.
    witness_directory: Path | None = None


class BackupSettings(Section):
    """Copies of the store and of the unit's keys. `directory`: default `backups` in the store's."""

    directory: Path | None = None
    every_hours: Annotated[float, Field(ge=0, le=168)] = 6
    keep: Annotated[int, Field(ge=1, le=1000)] = 28


class CeilingSettings(Section):
    """How long receipts may be signed without KRA (VSCU spec 2.2: 24 hours, never more)."""

    limit_hours: float = 24.0
    last_contact_reading: bool = True
    oldest_unsent_reading: bool = True
    warn_percent: tuple[int, ...] = (75, 90, 98)
    contact_interval_s: Seconds = 300
    max_clock_ahead_s: Seconds = 600


class CloudSettings(Section):
    url: str | None = None
    gateway_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    batch_records: Annotated[int, Field(ge=1, le=1000)] = 100
    batch_bytes: Annotated[int, Field(ge=10_000)] = 1_000_000
    interval_s: Seconds = 5
    backoff_max_s: Seconds = 300
    timeout_s: Seconds = 15
    max_kbps: Annotated[float, Field(ge=1)] | None = None
    ca_file: Path | None = None


class ReferenceSettings(Section):
    """KRA's lists, and what the shop registers."""

    # 0: the lists are not read.
    every_hours: Annotated[float, Field(ge=0)] = 6
    # KRA counts stock moves per branch; a shop that comes from another system goes on with its next.
    first_stock_no: Annotated[int, Field(ge=1)] = 1


class LogSettings(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """The whole; each part of the gateway is given its own section only."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    branch: BranchSettings
    unit: UnitSettings
    store: StoreSettings
    tills: tuple[TillSettings, ...]
    api: ApiSettings = ApiSettings()
    printers: dict[str, PrinterSettings] = Field(default_factory=dict)
    displays: dict[str, DisplaySettings] = Field(default_factory=dict)
    scales: dict[str, ScaleSettings] = Field(default_factory=dict)
    scanners: dict[str, ScannerSettings] = Field(default_factory=dict)
    serial_tills: dict[str, SerialTillSettings] = Field(default_factory=dict)
    captures: dict[str, CaptureSettings] = Field(default_factory=dict)
    # Ports that are never opened or probed, whatever they look like (a UPS, a modem).
    excluded_ports: tuple[str, ...] = ()
    printing: PrintingSettings = PrintingSettings()
    reports: ReportSettings = ReportSettings()
    receipt: ReceiptSettings = ReceiptSettings()
    ceiling: CeilingSettings = CeilingSettings()
    cloud: CloudSettings = CloudSettings()
    reference: ReferenceSettings = ReferenceSettings()
    mpesa: MpesaSettings = MpesaSettings()
    backup: BackupSettings = BackupSettings()
    log: LogSettings = LogSettings()
    till_tokens: dict[str, SecretStr] = Field(default_factory=dict)
    technician_tokens: dict[str, SecretStr] = Field(default_factory=dict)
    cloud_token: SecretStr | None = None
    mpesa_consumer_key: SecretStr | None = None
    mpesa_consumer_secret: SecretStr | None = None
    mpesa_passkey: SecretStr | None = None
    mpesa_security_credential: SecretStr | None = None
    mpesa_relay_secret: SecretStr | None = None
    _off: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def off(self) -> dict[str, str]:
        """Return the parts that are off because a credential of theirs is missing, each with a sentence."""
        return self._off

    def with_off(self, mpesa: MpesaSettings, off: dict[str, str]) -> Settings:
        """Return these settings without the parts of `off`."""
        found = self.model_copy(update={"mpesa": mpesa})
        found._off = off  # noqa: SLF001 - its own class
        return found

    @property
    def devices(self) -> list[tuple[str, str]]:
        """(name, port) of everything on the counter."""
        return ports_of(
            self.printers,
            self.displays,
            self.scales,
            self.scanners,
            self.serial_tills,
            self.captures,
        )

    @property
    def backup_directory(self) -> Path:
        return self.backup.directory or self.store.directory / "backups"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment and the file are merged by `load`, which knows where each value is from;
        # a Settings made in a program takes exactly what it is given.
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: the key as written in the file (`unit.port`), and a sentence about it."""

    key: str
    message: str


def cross_checks(settings: Settings) -> list[Problem]:
    """What only shows when settings are seen together."""
    found: list[Problem] = []

    def add(key: str, message: str) -> None:
        found.append(Problem(key, message))

    _check_unit(settings, add)
    _check_tills(settings, add)
    check_printers(settings.printers, settings.reports, add)
    check_logo(settings.receipt.logo, settings.printers, add)
    check_ports(settings.devices, settings.excluded_ports, add)
    devices = (settings.displays, settings.scales, settings.scanners, settings.serial_tills)
    known = {till.id for till in settings.tills}
    check_devices(known, settings.captures, devices, add)
    secrets = {name: value for name, value in settings if name.startswith("mpesa_")}
    check_mpesa(settings.mpesa, secrets, known, add)
    ceiling = settings.ceiling
    if not 0 < ceiling.limit_hours <= 24:
        add("ceiling.limit_hours", "must be more than 0 and at most 24 (KRA VSCU spec 2.2)")
    if not (ceiling.last_contact_reading or ceiling.oldest_unsent_reading):
        add("ceiling.last_contact_reading", "and oldest_unsent_reading cannot both be off")
    if list(ceiling.warn_percent) != sorted(set(ceiling.warn_percent)) or not all(
        0 < step < 100 for step in ceiling.warn_percent
    ):
        add("ceiling.warn_percent", "must rise, each between 0 and 100")
    if settings.api.port == settings.unit.port and settings.unit.host == "in-process":
        add("api.port", f"{settings.api.port} is the control unit's port too; choose another")
    cloud = settings.cloud
    if cloud.url is not None:
        local = cloud.url.startswith(("http://127.", "http://localhost", "http://[::1]"))
        if not cloud.url.startswith("https://") and not local:
            add("cloud.url", "must start with https:// (plain http only to this machine)")
        if settings.cloud_token is None and "cloud" not in settings.off:
            add(
                "cloud_token",
                "is required with cloud.url: set GATEWAY_CLOUD_TOKEN or the credential",
            )
    return found


# Codes that may follow a sale which the unit has signed (etims.md 3.2, 8.3): 899 answers a duplicate and a full
# disk alike, 994 and 924 are duplicates, the others are the path to KRA or KRA itself.
AFTER_SIGNING = frozenset({"838", "894", "896", "899", "924", "990", "994", "996", "999"})


def _check_codes(unit: UnitSettings, add: Any) -> None:
    """One code proves one thing, and none proves more than its source says."""
    lists = {
        name: getattr(unit, name)
        for name in ("success_codes", "duplicate_codes", "refused_codes", "not_ready_codes")
    }
    seen: dict[str, str] = {}
    for name, codes in lists.items():
        for code in codes:
            if code in seen and seen[code] != name:
                add(f"unit.{name}", f"{code} is in unit.{seen[code]} as well; it proves one thing")
            seen.setdefault(code, name)
            proves_no = name in ("refused_codes", "not_ready_codes")
            if proves_no and code in AFTER_SIGNING:
                add(
                    f"unit.{name}",
                    f"{code} may follow a sale that was signed; it cannot mean that none was",
                )


def _check_unit(settings: Settings, add: Any) -> None:
    unit = settings.unit
    _check_codes(unit, add)
    if unit.database is None and (unit.database_query or unit.database_counter_query):
        add("unit.database", "is required with unit.database_query: the path of the unit's file")
    if unit.database is not None and not (unit.database_query or unit.database_counter_query):
        add("unit.database_query", "is required with unit.database: how a sale is found in it")
    if unit.database_query is not None and ":invcNo" not in unit.database_query:
        add("unit.database_query", "must ask for :invcNo")
    for name, secret in settings.technician_tokens.items():
        if len(secret.get_secret_value()) < 12:
            add("technician_tokens", f"the code of {name} is shorter than 12 characters")
    if unit.host != "in-process":
        return
    if unit.jar is None:
        add("unit.jar", 'is required with host = "in-process": the path of KRA\'s JAR')
    elif not unit.jar.is_file():
        add("unit.jar", f"{unit.jar} does not exist")
    if unit.directory is None:
        add("unit.directory", 'is required with host = "in-process": where the JAR keeps its data')


def _check_tills(settings: Settings, add: Any) -> None:
    ids = [till.id for till in settings.tills]
    if not ids:
        add("tills", "needs at least one [[tills]] with an id")
    for till in settings.tills:
        if ids.count(till.id) > 1:
            add(f"tills.{till.id}", "is there twice")
        if till.printer is not None and till.printer not in settings.printers:
            add(f"tills.{till.id}.printer", f"{till.printer} is not in [printers]")
        if till.id not in settings.till_tokens:
            add(
                "till_tokens",
                f"has no token for till {till.id}: set GATEWAY_TILL_TOKENS or the credential",
            )
    seen: dict[str, str] = {}
    for till_id, secret in settings.till_tokens.items():
        token = secret.get_secret_value()
        if till_id not in ids:
            add("till_tokens", f"has a token for {till_id}, which is not in [[tills]]")
        if len(token) < 16:
            add("till_tokens", f"the token of {till_id} is shorter than 16 characters")
        if token in seen:
            add("till_tokens", f"{till_id} and {seen[token]} have the same token")
        seen[token] = till_id
