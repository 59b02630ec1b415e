"""A bad mobile link: a fifth of the packets lost, 600 ms there and back. Slow, and everything once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.netshop import net_shop
from tests.support.shop import TOKENS, a_sale

LOSS, DELAY_S = 0.2, 0.3


async def test_over_a_link_that_loses_every_fifth_packet(tmp_path: Path) -> None:
    patient = {"cloud": "timeout_s = 10\n", "mpesa": "answer_timeout_s = 20\n"}
    async with net_shop(tmp_path, rough=True, **patient) as shop:
        assert shop.cable is not None
        # At first nothing comes through, however long a sale takes here.
        shop.cable.loss, shop.cable.delay_s = 1.0, DELAY_S
        push = await shop.till().push("push", "S-1", "10.00", "254711000001")
        first = await shop.till().sell("first", a_sale())
        # It is signed while M-Pesa and the cloud are still being reached.
        assert not shop.daraja.pushes
        assert not shop.cloud.records
        shop.cable.loss = LOSS
        sales = (shop.till(till).sell(till, a_sale()) for till in TOKENS)
        replies = [first, *await asyncio.gather(*sales)]
        assert {reply.status for reply in replies} == {201}
        ended = await shop.ends(push.json["paymentId"], "PAID", "REFUSED")
        again = 0
        while ended["state"] == "REFUSED":
            # Ten seconds of bad luck: no connection, so nothing was sent, and the cashier may ask again.
            assert ended["reason"] == "NOT_SENT"
            again += 1
            push = await shop.till().push(f"push-{again}", "S-1", "10.00", "254711000001")
            ended = await shop.ends(push.json["paymentId"], "PAID", "REFUSED")
        assert ended["paid"] == "10.00"
        await shop.cloud.wait_for(len(replies), 90)
        await shop.until(lambda status: status["cloud"]["waiting"] == 0)
        assert len(shop.daraja.pushes) == 1
        assert sum(each.amount for each in shop.daraja.payments) == 10
        stored = [record["invoiceId"] for record in shop.cloud.records]
        assert sorted(stored) == sorted(reply.json["invoiceId"] for reply in replies)
        assert shop.cable.lost > 0
