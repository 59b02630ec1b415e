"""`python -m tests.golden.write`: the kept bytes and pictures anew. Look at every picture that changed."""

from __future__ import annotations

from tests.golden.cases import FOLDER, cases
from tests.support.slips import paper_of, printed


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for case in cases():
        data = printed(case)
        case.bytes_file.write_bytes(data)
        case.picture_file.write_bytes(paper_of(data).picture(case.dots))
        print(f"{case.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
