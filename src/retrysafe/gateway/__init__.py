"""`retrysafe serve`: the ASGI door in front of any HTTP API.

A request goes through `wire` (bytes), `front` (what is refused, by `strict`), the door, and `upstream`
(what is sent on, by `forwarding`). `app` puts them together as `config` says.
"""
