"""What a cashier reads aloud for each state of a payment, in English and Kiswahili (daraja.md 8, 3.1).

Never "failed" while nobody knows: the customer's phone is the better witness then.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.payment import Money, PaymentState, Reason, Tender


@dataclass(frozen=True, slots=True)
class Sentence:
    en: str
    sw: str

    def as_json(self) -> dict[str, str]:
        return {"en": self.en, "sw": self.sw}


_REASONS = {
    Reason.CANCELLED: Sentence(
        "Customer cancelled, or did not answer in time. Nothing was taken.",
        "Mteja ameghairi, au hakujibu kwa wakati. Hakuna pesa iliyochukuliwa.",
    ),
    Reason.FAILED_FUNDS: Sentence(
        "Not enough money in M-Pesa. Nothing was taken.",
        "Pesa haitoshi kwenye M-Pesa. Hakuna kilichochukuliwa.",
    ),
    Reason.FAILED_LIMIT: Sentence(
        "The amount is outside the customer's M-Pesa limits. Nothing was taken.",
        "Kiasi kiko nje ya mipaka ya M-Pesa ya mteja. Hakuna kilichochukuliwa.",
    ),
    Reason.FAILED_PIN: Sentence(
        "Wrong M-Pesa PIN. Nothing was taken. Try again.",
        "PIN ya M-Pesa si sahihi. Hakuna kilichochukuliwa. Jaribu tena.",
    ),
    Reason.FAILED_BUSY: Sentence(
        "Customer has another M-Pesa request open. Close it and try again in a minute.",
        "Mteja ana ombi lingine la M-Pesa. Lifunge, kisha jaribu tena baada ya dakika moja.",
    ),
    Reason.FAILED_EXPIRED: Sentence(
        "The request expired. Nothing was taken. Try again.",
        "Ombi limeisha muda. Hakuna kilichochukuliwa. Jaribu tena.",
    ),
    Reason.FAILED_RETRYABLE: Sentence(
        "M-Pesa could not do it now. Nothing was taken. Try again in two minutes.",
        "M-Pesa haikuweza sasa. Hakuna kilichochukuliwa. Jaribu tena baada ya dakika mbili.",
    ),
    Reason.FAILED_UNREACHABLE: Sentence(
        "Could not reach the phone. Check for an M-Pesa SMS before trying again.",
        "Simu haikupatikana. Angalia SMS ya M-Pesa kabla ya kujaribu tena.",
    ),
    Reason.FAILED_CONFIG: Sentence(
        "M-Pesa set-up problem. Take another payment and call the manager.",
        "Kuna tatizo la usanidi wa M-Pesa. Pokea malipo mengine na umwite meneja.",
    ),
    Reason.FAILED: Sentence(
        "M-Pesa says it was not paid. Look for an M-Pesa SMS before trying again.",
        "M-Pesa inasema haijalipwa. Angalia SMS ya M-Pesa kabla ya kujaribu tena.",
    ),
    Reason.NOT_SENT: Sentence(
        "The request was not sent. Nothing was taken. Try again in a minute.",
        "Ombi halikutumwa. Hakuna kilichochukuliwa. Jaribu tena baada ya dakika moja.",
    ),
    Reason.CONFIG: Sentence(
        "M-Pesa set-up problem. Take another payment and call the manager.",
        "Kuna tatizo la usanidi wa M-Pesa. Pokea malipo mengine na umwite meneja.",
    ),
    Reason.INPUT: Sentence(
        "M-Pesa does not take this number or amount. Check both and try again.",
        "M-Pesa haikubali namba au kiasi hiki. Kagua vyote na ujaribu tena.",
    ),
    Reason.NOT_FOUND: Sentence(
        "M-Pesa has no such payment. Nothing was taken.",
        "M-Pesa haina malipo hayo. Hakuna kilichochukuliwa.",
    ),
    Reason.PERSON: Sentence(
        "A person has looked: it was not paid.",
        "Mtu amekagua: haijalipwa.",
    ),
}
_ASK = Sentence(
    "Ask the customer to check their phone and enter the M-Pesa PIN.",
    "Mwambie mteja aangalie simu na aweke PIN ya M-Pesa.",
)
_STILL = Sentence(
    "Still waiting. The prompt may be under other windows.",
    "Bado tunasubiri. Ujumbe unaweza kuwa chini ya programu nyingine.",
)
_LOST = Sentence(
    "We could not tell whether the request reached M-Pesa. Wait a minute and look at the phone before "
    "sending again.",
    "Haijulikani kama ombi limefika M-Pesa. Subiri dakika moja na uangalie simu kabla ya kutuma tena.",
)
_UNKNOWN = Sentence(
    "Status unknown. M-Pesa has not confirmed. Ask to see the M-Pesa SMS before taking another payment.",
    "Hali haijulikani. M-Pesa haijathibitisha. Omba kuona SMS ya M-Pesa kabla ya kupokea malipo mengine.",
)
_TO_FOLLOW = Sentence("Paid. Receipt number to follow.", "Imelipwa. Namba ya risiti itafuata.")
_BACK = Sentence("The money went back to the customer.", "Pesa imerudishwa kwa mteja.")
# From when on a waiting customer is told where to look, in seconds.
STILL_AFTER_S = 45


def spoken(cents: int) -> str:
    """Return shillings as they are read aloud: 1,450, and 450.50 where there are cents."""
    return f"{cents // 100:,}" if cents % 100 == 0 else f"{cents // 100:,}.{cents % 100:02d}"


def sentence(now: PaymentState, waited_s: float = 0.0) -> Sentence:
    """What is said to the cashier. `waited_s`: seconds since the request was sent."""
    receipt, came = now.receipt or "", spoken(now.came_cents)
    if now.money is Money.REFUNDED or now.tender is Tender.REFUNDED:
        return _BACK
    if now.tender is Tender.REVIEW:
        asked = spoken(now.amount_cents)
        return Sentence(
            f"The customer paid {came}, not {asked}. Call the manager.",
            f"Mteja amelipa {came}, si {asked}. Mwite meneja.",
        )
    if now.tender is Tender.MERGED and now.used_for is not None:
        return Sentence(
            f"The money of this request ({receipt or came}) was used for sale {now.used_for}. "
            "Call the manager.",
            f"Pesa ya ombi hili ({receipt or came}) imetumika kwa mauzo {now.used_for}. Mwite meneja.",
        )
    if now.tender is Tender.REFUND_DUE and now.reason is Reason.REFUND_ORDERED:
        return Sentence(
            f"The money ({receipt or came}) is to go back to the customer. Refund due.",
            f"Pesa ({receipt or came}) inarudishwa kwa mteja.",
        )
    if now.tender is Tender.REFUND_DUE:
        return Sentence(
            f"M-Pesa confirmed {receipt or came} for a sale that was settled without it. Refund due.",
            f"M-Pesa imethibitisha {receipt or came} kwa mauzo yaliyokwisha lipwa. Pesa irudishwe.",
        )
    match now.money:
        case Money.PAID:
            if not receipt:
                return _TO_FOLLOW
            return Sentence(f"Paid. Receipt {receipt}.", f"Imelipwa. Risiti {receipt}.")
        case Money.NEW | Money.SENDING | Money.WAITING:
            return _STILL if waited_s >= STILL_AFTER_S else _ASK
        case Money.SEND_UNKNOWN:
            return _LOST
        case Money.UNKNOWN:
            return _UNKNOWN
        case _:
            return _REASONS.get(now.reason or Reason.FAILED, _REASONS[Reason.FAILED])
