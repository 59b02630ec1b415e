"""`python -m gateway` is `pos-gateway`."""

from gateway.cli import main

raise SystemExit(main())
