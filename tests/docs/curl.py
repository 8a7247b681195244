"""The options of curl that the pages use, for machines that have no curl."""

from __future__ import annotations

import argparse
import sys
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit


def main() -> int:
    """Do one request as curl would; an option that is not known here is an error."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-d", "--data")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-S", "--show-error", action="store_true")
    parser.add_argument("-o", "--output", choices=["/dev/null"])
    parser.add_argument("-w", "--write-out", default="")
    parser.add_argument("-X", "--request")
    options = parser.parse_args()
    try:
        response = _request(options)
    except OSError as error:
        sys.stderr.write(f"curl: (7) {error}\n")
        return 7
    content = response.read()
    if not options.output:
        head = [f"HTTP/1.1 {response.status} {response.reason}", *map(": ".join, response.getheaders()), "", ""]
        sys.stdout.write("\n".join(head) if options.include else "")
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    shown = options.write_out.replace("%{http_code}", str(response.status)).replace("\\n", "\n")
    sys.stdout.write(shown)
    return 0


def _request(options: argparse.Namespace) -> HTTPResponse:
    url = urlsplit(options.url if "//" in options.url else f"http://{options.url}")
    headers = {"Accept": "*/*"} | ({"Content-Type": "application/x-www-form-urlencoded"} if options.data else {})
    for line in options.header:
        name, _, value = line.partition(":")
        headers = {known: kept for known, kept in headers.items() if known.lower() != name.lower()}
        headers[name] = value.strip()
    method = options.request or ("POST" if options.data else "GET")
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection = HTTPConnection(url.hostname or "", url.port or 80)
    connection.request(method, target, options.data, headers)
    return connection.getresponse()


if __name__ == "__main__":
    sys.exit(main())
