"""The fake control unit: its answers, its faults, its JAR."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.vscu import build
from hw_fakes.vscu.unit import BRANCH, JAR, PIN, SERIAL, ExternalUnit, UnitControl

CASES = json.loads((Path(__file__).parents[1] / "data/sale-cases.json").read_text())["cases"]
WHO = {"tin": PIN, "bhfId": BRANCH}
SALE = "/trnsSales/saveSales"
READS = [
    "/code/selectCodes", "/itemClass/selectItemsClass", "/branches/selectBranches",
    "/notices/selectNotices", "/items/selectItems", "/imports/selectImportItems",
    "/trnsPurchase/selectTrnsPurchaseSales", "/stock/selectStockItems",
]  # fmt: skip


async def initialise(unit: UnitControl) -> dict[str, Any]:
    return await unit.post("/initializer/selectInitInfo", {**WHO, "dvcSrlNo": SERIAL})


def a_request(invc_no: int, **changes: Any) -> dict[str, Any]:
    body = copy.deepcopy(CASES["sale-simple"]["request"])
    return {**body, "invcNo": invc_no, **changes}


async def test_it_is_initialised_once_and_knows_its_serial(unit: UnitControl) -> None:
    assert (await unit.post(SALE, a_request(1)))["resultCd"] == "901"
    wrong = await unit.post("/initializer/selectInitInfo", {**WHO, "dvcSrlNo": "other"})
    assert wrong["resultCd"] == "901"
    first = await initialise(unit)
    assert (first["resultCd"], first["data"]["info"]["sdcId"]) == ("000", "KRACU0300000001")
    assert (await initialise(unit))["resultCd"] == "902"


@pytest.mark.parametrize("name", list(CASES))
async def test_it_signs_the_sample_sales(unit: UnitControl, name: str) -> None:
    await initialise(unit)
    await unit.knobs(
        creditCheck="off"
    )  # the originals of the samples' credit notes are not among them
    answer = await unit.post(SALE, {**CASES[name]["request"], "invcNo": 1})
    assert answer["resultCd"] == "000", answer
    data = answer["data"]
    assert (len(data["intrlData"]), len(data["rcptSign"])) == (26, 16)
    assert set(data["intrlData"] + data["rcptSign"]) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert len(data["vsdcRcptPbctDate"]) == 14


async def test_a_hundred_at_once_have_no_gap(unit: UnitControl) -> None:
    await initialise(unit)
    answers = await asyncio.gather(*(unit.post(SALE, a_request(n)) for n in range(1, 101)))
    assert sorted(a["data"]["rcptNo"] for a in answers) == list(range(1, 101))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"invcNo": "1"}, "910"),
        ({"taxblAmtE": None}, "910"),
        ({"totAmt": 297.01}, "910"),
        ({"totTaxAmt": 31}, "910"),
        ({"regrId": None}, "910"),
        ({"totItemCnt": 3}, "910"),
        ({"salesDt": "20990101"}, "910"),
        ({"salesTyCd": "P", "rcptTyCd": "R"}, "834"),
        ({"pmtTyCd": "99"}, "913"),
    ],
)
async def test_it_validates_before_it_signs(
    unit: UnitControl, changes: dict[str, Any], code: str
) -> None:
    await initialise(unit)
    assert (await unit.post(SALE, a_request(1, **changes)))["resultCd"] == code
    item = a_request(1)
    item["itemList"][0]["pkgUnitCd"] = "UNT"
    assert (await unit.post(SALE, item))["resultCd"] == "913"
    item = a_request(1)
    item["itemList"][0]["dcRt"] = 2.5
    assert (await unit.post(SALE, item))["resultCd"] == "910"
    assert await unit.journal() == []


async def test_the_http_side_is_as_springs(unit: UnitControl) -> None:
    with pytest.raises(ValueError, match="HTTP 404"):
        await unit.post("/trnsSales/saveInvoice", WHO)
    with pytest.raises(ValueError, match="HTTP 404"):
        await unit.post("/trnsSales/selectInvoice", {**WHO, "invcNo": 1})
    with pytest.raises(ValueError, match="HTTP 400"):
        await unit.knobs(noSuchKnob=1)
    with pytest.raises(ValueError, match="HTTP 405"):
        await unit._ask("/code/selectCodes")
    await unit.knobs(html404=True)
    with pytest.raises(ValueError, match="<h1>HTTP Status 404"):
        await unit.post(SALE, WHO)


async def test_every_local_path_answers(unit: UnitControl) -> None:
    await initialise(unit)
    for path in READS:
        answer = await unit.post(path, {**WHO, "lastReqDt": "20180520000000"})
        assert answer["resultCd"] in ("000", "001"), path
        assert (await unit.post(path, {**WHO, "lastReqDt": "soon"}))["resultCd"] == "E31"
    person = {"regrId": "a", "regrNm": "a", "modrId": "a", "modrNm": "a"}
    item = {
        "itemCd": "KE1NTXU0000001", "itemClsCd": "50202300", "itemTyCd": "2", "itemNm": "Soda",
        "orgnNatCd": "KE", "pkgUnitCd": "NT", "qtyUnitCd": "U", "taxTyCd": "B", "dftPrc": 116,
        "isrcAplcbYn": "N", "useYn": "Y", **person,
    }  # fmt: skip
    assert (await unit.post("/items/saveItems", {**WHO, **item}))["resultCd"] == "000"
    listed = await unit.post("/items/selectItems", {**WHO, "lastReqDt": "20180520000000"})
    assert listed["data"]["itemList"][0]["itemCd"] == "KE1NTXU0000001"
    stock = {"itemCd": "KE1NTXU0000001", "rsdQty": 5, **person}
    assert (await unit.post("/stockMaster/saveStockMaster", {**WHO, **stock}))["resultCd"] == "000"


@pytest.mark.parametrize("answer", ["899", "924", "994", "expected"])
async def test_a_number_is_taken_once(unit: UnitControl, answer: str) -> None:
    await initialise(unit)
    await unit.knobs(duplicateAnswer=answer, loseAnswers=1)
    with pytest.raises((OSError, ValueError)):
        await unit.post(SALE, a_request(1))
    again = await unit.post(SALE, a_request(1))
    assert again["resultCd"] == ("910" if answer == "expected" else answer)
    assert again["data"] is None
    assert len(await unit.journal()) == 1


async def test_it_names_the_number_that_it_refuses(unit: UnitControl) -> None:
    await initialise(unit)
    await unit.knobs(duplicateAnswer="expected")
    assert (await unit.post(SALE, a_request(1)))["resultCd"] == "000"
    again = await unit.post(SALE, a_request(1))
    assert again["resultMsg"] == "Invc No: 1 is invalid, use the expected value: 2"


def a_note(invc_no: int, original: int, **changes: Any) -> dict[str, Any]:
    """A credit note of the whole sample sale."""
    refund = {"rcptTyCd": "R", "orgInvcNo": original, "rfdRsnCd": "06"}
    return a_request(invc_no, **refund, **changes)


async def test_a_credit_note_is_checked_against_its_original(unit: UnitControl) -> None:
    await initialise(unit)

    async def code(body: dict[str, Any]) -> str:
        return str((await unit.post(SALE, body))["resultCd"])

    missing = await unit.post(SALE, a_note(1, 9))
    assert (missing["resultCd"], missing["resultMsg"]) == (
        "930", "The specified invoice could not be found. Please verify [orgInvcNo] and try again",
    )  # fmt: skip
    assert await code(a_request(1, orgInvcNo=5)) == "910"
    assert await code(a_request(1)) == "000"
    other = a_note(2, 1)
    other["itemList"][0]["itemCd"] = "KE1NTXU9999999"
    assert await code(other) == "932"
    assert await code(a_note(2, 1, custTin="P051234567X")) == "935"
    assert await code(a_note(2, 1, salesTyCd="T")) == "930"
    assert await code(a_note(2, 1)) == "000"
    assert await code(a_note(3, 2)) == "930"  # a note of a note
    assert await code(a_note(3, 1)) == "934"  # all of it was taken back before
    # The same number again: some look for a duplicate first, some at the original first.
    assert await code(a_note(2, 1)) == "899"
    await unit.knobs(creditCheck="before")
    assert await code(a_note(2, 1)) == "934"
    await unit.knobs(creditCheck="off")
    assert await code(a_note(3, 1)) == "000"


async def test_a_price_that_does_not_make_the_amount_is_refused_by_an_exact_unit(
    unit: UnitControl,
) -> None:
    await initialise(unit)
    folded = a_request(1)
    line = folded["itemList"][0]
    line["prc"] += 0.01  # as a discount that is folded into the price does
    await unit.knobs(splyAmt="exact")
    refused = await unit.post(SALE, folded)
    assert refused["resultMsg"] == "Request parameter error [<itemList><splyAmt>]"
    await unit.knobs(splyAmt="loose")
    assert (await unit.post(SALE, folded))["resultCd"] == "000"


async def test_each_not_ready_code_is_for_sales_only(unit: UnitControl) -> None:
    await initialise(unit)
    since = {**WHO, "lastReqDt": "20180520000000"}
    for code in ("836", "891", "892", "E11", "11", "900", "901", "903", "905", "E04", "837"):
        await unit.knobs(notReady=code)
        assert (await unit.post(SALE, a_request(1)))["resultCd"] == code
        assert (await unit.post("/code/selectCodes", since))["resultCd"] == "000"
    assert await unit.journal() == []


async def test_tax_rates_can_be_odd(unit: UnitControl) -> None:
    await initialise(unit)
    await unit.knobs(taxRates="B=14,C=null,D=-16,E=,F=3")
    answer = await unit.post("/code/selectCodes", {**WHO, "lastReqDt": "20180520000000"})
    [rates] = [c["dtlList"] for c in answer["data"]["clsList"] if c["cdCls"] == "04"]
    assert {row["cd"]: row["userDfnCd1"] for row in rates} == {
        "A": "0", "B": "14", "C": None, "D": "-16", "F": "3",
    }  # fmt: skip


async def test_an_unknown_form_of_answer_is_refused(unit: UnitControl) -> None:
    with pytest.raises(ValueError, match="400"):
        await unit.knobs(answerForm="klingon")


async def test_keys_disk_and_memory(unit: UnitControl) -> None:
    await initialise(unit)
    for keys in ("emptied", "deleted"):
        await unit.knobs(keys=keys)
        assert (await unit.post(SALE, a_request(1)))["resultCd"] == "899"
        await unit.knobs(keys="ok")
    await unit.knobs(diskFull=True)
    assert (await unit.post(SALE, a_request(1)))["resultCd"] == "899"
    await unit.knobs(diskFull=False, memoryFull=True)
    assert (await unit.post(SALE, a_request(1)))["resultCd"] == "E11"
    await unit.knobs(memoryFull=False)
    assert (await unit.post(SALE, a_request(1)))["resultCd"] == "000"


async def test_offline_it_stores_and_later_uploads_in_order(unit: UnitControl) -> None:
    await initialise(unit)
    await unit.knobs(upstream="offline")
    for number in range(1, 6):
        assert (await unit.post(SALE, a_request(number)))["resultCd"] == "000"
    notices = await unit.post("/notices/selectNotices", {**WHO, "lastReqDt": "20180520000000"})
    assert notices["resultCd"] == "894"
    assert [entry["uploaded"] for entry in await unit.journal()] == [False] * 5
    await unit.knobs(upstream="online")
    assert [entry["uploaded"] for entry in await unit.journal()] == [True] * 5
    assert (await unit.state())["received"] == 5


@pytest.mark.parametrize("answer", ["894", "838", "refused", "503"])
async def test_its_own_ceiling(unit: UnitControl, answer: str) -> None:
    await initialise(unit)
    await unit.post(SALE, a_request(1))
    await unit.knobs(upstream="offline", ceilingAnswer=answer)
    await unit.knobs(clockOffsetSeconds=24 * 3600 + 1)
    try:
        code = (await unit.post(SALE, a_request(2)))["resultCd"]
    except ValueError:
        code = "503"
    except OSError:
        code = "refused"
    assert code == answer
    await unit.knobs(upstream="online")
    assert (await unit.post(SALE, a_request(2)))["resultCd"] == "000"


async def test_killed_under_load_it_remembers_what_it_said(tmp_path: Path) -> None:
    async with ExternalUnit(tmp_path) as unit:
        await initialise(unit)
        said = []

        async def sell(number: int) -> None:
            answer = await unit.post(SALE, a_request(number))
            said.append((number, answer["data"]["rcptNo"]))
            if len(said) == 20:
                unit.kill()

        await asyncio.gather(*(sell(n) for n in range(1, 60)), return_exceptions=True)
        with (tmp_path / f"data/{PIN}_{BRANCH}/journal.jsonl").open("a") as journal:
            journal.write('{"torn":')
        await unit.start()
        kept = {(entry["invcNo"], entry["rcptNo"]) for entry in await unit.journal()}
        assert set(said) <= kept
        assert sorted(number for _, number in kept) == list(range(1, len(kept) + 1))


async def test_an_older_data_folder_is_noticed(tmp_path: Path) -> None:
    async with ExternalUnit(tmp_path) as unit:
        await initialise(unit)
        await unit.post(SALE, a_request(1))
        data, copied = tmp_path / "data", tmp_path / "copy"
        unit.kill()
        shutil.copytree(data, copied)
        await unit.start()
        await unit.post(SALE, a_request(2))
        unit.kill()
        shutil.rmtree(data)
        shutil.move(copied, data)
        await unit.start()
        await unit.knobs(upstream="offline")
        assert (await unit.post(SALE, a_request(3)))["resultCd"] == "836"
        await unit.knobs(upstream="online")
        assert (await unit.post(SALE, a_request(3)))["data"]["totRcptNo"] == 3


async def test_a_busy_port_ends_it(unit: UnitControl, tmp_path: Path) -> None:
    second = ExternalUnit(tmp_path, int(unit.url.rpartition(":")[2]))
    process = await asyncio.create_subprocess_exec(
        str(second._java()), "-jar", str(JAR), f"--server.port={second.port}",
        "--server.address=127.0.0.1", cwd=tmp_path, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"already in use" in err


def test_the_jar_is_built_from_its_source() -> None:
    with zipfile.ZipFile(JAR) as archive:
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed["META-INF/sources.sha256"].decode() == build.sources_digest()
    assert b"Start-Class: fake.vscu.Application" in packed["META-INF/MANIFEST.MF"]
    assert not any(name.startswith("fake/vscu/") for name in packed)
    if shutil.which("javac") is None:
        pytest.skip("no JDK here: the source's digest was compared, its classes were not")
    version = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        rebuilt = build.entries(build.compile_classes(Path(folder)))
    assert set(rebuilt) == set(packed)
    if "javac 17." in version.stdout + version.stderr:
        different = [name for name, data in rebuilt.items() if packed[name] != data]
        assert different == []


async def test_in_process_it_is_the_same(tmp_path: Path) -> None:
    """Main-Class through JPype in a process of its own: one sale, the same answer shape."""
    script = f"""
import asyncio, json, sys
from pathlib import Path
from gateway.vscu.host import InProcessUnit, end_process, main_class_of
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import JAR, UnitControl, prepare
home, port = Path({str(tmp_path)!r}), free_port()
assert main_class_of(JAR) == "fake.launcher.JarLauncher"
prepare(home, port=port)
async def main():
    unit = InProcessUnit(jar=JAR, directory=home, port=port, java_home=None, heap_mb=64)
    await unit.start()
    control = UnitControl(f"http://127.0.0.1:{{port}}")
    while True:
        try:
            await control.state()
            break
        except OSError:
            await asyncio.sleep(0.01)
    who = {{"tin": "{PIN}", "bhfId": "{BRANCH}"}}
    await control.post("/initializer/selectInitInfo", {{**who, "dvcSrlNo": "{SERIAL}"}})
    print(json.dumps(await control.post("{SALE}", json.loads(sys.argv[1]))))
    assert (await unit.figures()).heap_max_bytes <= 70_000_000
asyncio.run(main())
end_process(0)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, json.dumps(a_request(1)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    answer = json.loads(out.decode().strip().splitlines()[-1])
    assert answer["data"]["rcptNo"] == 1
    assert (tmp_path / "data").is_dir()
