"""The HTTP client for ESI, EVE Online's public API."""
