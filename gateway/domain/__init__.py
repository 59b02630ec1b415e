"""The fiscal rules as pure code: no asyncio, no sqlite3, no aiohttp, no logging, no clock."""
