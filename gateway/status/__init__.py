"""The status pages: server-rendered, no CDN, readable on a phone, live through SSE."""
