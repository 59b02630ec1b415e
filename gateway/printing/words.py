"""The words the law leaves free, in English and Kiswahili; KRA's own stay as KRA wrote them.

KRA's are every heading and label of TIS pages 8 and 10, of section 11 and of the reports' 20 fields.
What is left: who bought and who sold, change, discounts, the number of a copy, the shop's greeting
and thanks, a report's frame, and every strip that is no receipt. The designation NOT FISCALISED of a
captured slip stays English too: an officer has to understand it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """Texts with `{}` in them are completed by whoever prints them."""

    # On receipts.
    buyer: str
    cashier: str
    change: str
    discount: str
    copy_number: str
    welcome: str
    thanks: tuple[str, ...]
    # On reports.
    report_number: str
    since: str
    until: str
    end_of_report: str
    # On strips.
    suspended: str
    suspended_says: str
    stops: str  # the time of day
    stops_says: str  # hours, minutes
    meant_for: str  # a printer's name


WORDS = {
    "en": Words(
        buyer="BUYER",
        cashier="CASHIER",
        change="CHANGE",
        discount="DISCOUNT",
        copy_number="copy no. {}",
        welcome="Welcome to our shop",
        thanks=("THANK YOU", "WE LOOK FORWARD TO SERVE YOU AGAIN"),
        report_number="REPORT NUMBER",
        since="FROM",
        until="TO",
        end_of_report="END OF REPORT",
        suspended="SELLING IS SUSPENDED",
        suspended_says="KRA was not heard for too long. Bring the internet back; selling goes on by itself.",
        stops="SELLING STOPS AT {}",
        stops_says="KRA is not heard. {} h {} min left. Bring the internet back.",
        meant_for="FOR {}",
    ),
    "sw": Words(
        buyer="MNUNUZI",
        cashier="KARANI",
        change="CHENJI",
        discount="PUNGUZO",
        copy_number="nakala ya {}",
        welcome="Karibu dukani kwetu",
        thanks=("ASANTE", "TUNATARAJIA KUKUHUDUMIA TENA"),
        report_number="NAMBARI YA RIPOTI",
        since="KUANZIA",
        until="HADI",
        end_of_report="MWISHO WA RIPOTI",
        suspended="UUZAJI UMESIMAMISHWA",
        suspended_says="KRA haijasikika kwa muda mrefu mno. Rudisha intaneti; uuzaji utaendelea wenyewe.",
        # No "saa" before it: the clock on the wall is meant, not the Swahili hours.
        stops="UUZAJI UTASIMAMA {}",
        stops_says="KRA haisikiki. Zimebaki saa {} na dakika {}. Rudisha intaneti.",
        meant_for="KWA {}",
    ),
}
