"""KRA's lists and registers, put together: what is read, what is sent, and what the API needs of both."""

from __future__ import annotations

from gateway.api.reference import ReferenceDesk
from gateway.clock import Clock
from gateway.continuity.reference import ReferenceReader, RegistrationSender
from gateway.domain.invoice import Cashier
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.supervisor import Restart, Supervisor
from gateway.vscu.client import UnitClient
from gateway.vscu.lists import UnitLists
from gateway.vscu.registers import Registrar


class ReferenceLine:
    """`start` once; `link_is_back` whenever KRA was heard."""

    def __init__(self, settings: Settings, clock: Clock, db: Database, client: UnitClient) -> None:
        part, branch, unit = settings.reference, settings.branch, settings.unit
        lists = UnitLists(client)
        self._every_s = part.every_hours * 3600
        self.reader = ReferenceReader(db=db, clock=clock, source=lists, every_s=self._every_s)
        self.sender = RegistrationSender(db=db, clock=clock, register=lists)
        self.desk = ReferenceDesk(
            registrar=Registrar(
                branch.pin, branch.branch_id, Cashier(unit.cashier_id, unit.cashier_name)
            ),
            problems=lambda: self.reader.problems,
            customer=lists.customer,
            notify=self.sender.notify,
            first_stock_no=part.first_stock_no,
        )

    def start(self, supervisor: Supervisor) -> None:
        if self._every_s > 0:
            supervisor.start("reference", self.reader.run, Restart.BACKOFF)
        supervisor.start("registrations", self.sender.run, Restart.BACKOFF)

    def link_is_back(self) -> None:
        self.reader.link_is_back()
        self.sender.link_is_back()
