"""The unit's journal as a SQLite file, in the shape ZRA's recovery code reads (etims.md 8.3)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

SALE_QUERY = """
    SELECT RCPT_NO AS rcptNo, TOT_RCPT_NO AS totRcptNo, INTRL_DATA AS intrlData,
           RCPT_SIGN AS rcptSign, VSDC_RCPT_PBCT_DATE AS vsdcRcptPbctDate, TOT_AMT AS totAmt,
           CUST_TIN AS custTin, CFM_DT AS cfmDt, TRD_INVC_NO AS trdInvcNo, REMARK AS remark
    FROM TRNS_SALES WHERE INVC_NO = :invcNo"""
COUNTER_QUERY = "SELECT MAX(TOT_RCPT_NO) FROM TRNS_SALES"


def write(path: Path, journal: list[dict[str, Any]]) -> None:
    """The file as it would be after these signatures."""
    path.unlink(missing_ok=True)
    conn = sqlite3.connect(path)
    conn.execute(
        """CREATE TABLE TRNS_SALES (INVC_NO INTEGER, RCPT_NO INTEGER, TOT_RCPT_NO INTEGER,
           INTRL_DATA TEXT, RCPT_SIGN TEXT, VSDC_RCPT_PBCT_DATE TEXT, TOT_AMT TEXT, CUST_TIN TEXT,
           CFM_DT TEXT, TRD_INVC_NO TEXT, REMARK TEXT)"""
    )
    for entry in journal:
        conn.execute(
            "INSERT INTO TRNS_SALES VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry["invcNo"],
                entry["rcptNo"],
                entry["totRcptNo"],
                entry["intrlData"],
                entry["rcptSign"],
                entry["vsdcRcptPbctDate"],
                str(entry["totAmt"]),
                entry.get("custTin"),
                entry.get("cfmDt"),
                entry.get("trdInvcNo"),
                entry.get("remark"),
            ),
        )
    conn.commit()
    conn.close()
