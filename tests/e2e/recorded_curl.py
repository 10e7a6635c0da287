"""`curl` as the test of docs/api.md puts it first on the PATH: every call's status and body are kept.

The real curl makes the call where there is one that knows the options the page uses (7.82); where there is
none, as on a bare Debian, this file makes it with the standard library. Only those options are understood.

Started as ``python -I -S recorded_curl.py FOLDER REAL_CURL_OR_EMPTY options ...``; call n leaves ``n.status``
and ``n.body`` in the folder.
"""

from __future__ import annotations

import os
import subprocess
import sys

FAILED = 22  # what curl's --fail-with-body exits with


class Wanted:
    """What the options ask for."""

    def __init__(self, words: list[str]) -> None:
        self.url, self.method, self.out = "", "", ""
        self.headers: dict[str, str] = {}
        self.data: bytes | None = None
        self.fails = False
        rest = iter(words)
        for word in rest:
            if word == "--fail-with-body":
                self.fails = True
            elif word in ("-X", "-o", "-H", "--json"):
                self._take(word, next(rest))
            elif word.startswith("http://"):
                self.url = word
            elif word != "-sS":
                raise SystemExit(f"this stand-in for curl does not know {word}")

    def _take(self, option: str, value: str) -> None:
        if option == "-X":
            self.method = value
        elif option == "-o":
            self.out = value
        elif option == "-H":
            name, _, text = value.partition(":")
            self.headers[name.strip()] = text.strip()
        else:
            self.data = sys.stdin.buffer.read() if value == "@-" else value.encode()
            self.headers |= {"Content-Type": "application/json", "Accept": "application/json"}


def fetch(wanted: Wanted) -> tuple[int, bytes]:
    """(status, body)."""
    import urllib.error  # here: where there is a curl, a tenth of a second for each call is saved
    import urllib.request

    method = wanted.method or ("POST" if wanted.data is not None else "GET")
    request = urllib.request.Request(wanted.url, wanted.data, wanted.headers, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def by_real_curl(curl: str, words: list[str], body_file: str) -> tuple[int, bytes, int]:
    """(status, body, exit code)."""
    done = subprocess.run(
        [curl, "--noproxy", "*", *words, "-o", body_file, "-w", "%{http_code}"],
        stdout=subprocess.PIPE,
        check=False,
    )
    with open(body_file, "ab+") as file:
        file.seek(0)
        return int(done.stdout or 0), file.read(), done.returncode


def main(folder: str, curl: str, *words: str) -> int:
    given = list(words)
    number = sum(name.endswith(".status") for name in os.listdir(folder))
    body_file = os.path.join(folder, f"{number}.body")
    wanted = Wanted([*given])  # also where the real one is used: the page may only use what both know
    if curl:
        if wanted.data is not None and "@-" in given:
            given[given.index("@-")] = wanted.data.decode()
        if wanted.out:
            place = given.index("-o")
            del given[place : place + 2]
        status, body, code = by_real_curl(curl, given, body_file)
    else:
        status, body = fetch(wanted)
        code = FAILED if wanted.fails and status >= 400 else 0
        with open(body_file, "wb") as file:
            file.write(body)
    with open(os.path.join(folder, f"{number}.status"), "w") as file:
        file.write(str(status))
    if wanted.out:
        with open(wanted.out, "wb") as file:
            file.write(body)
    else:
        sys.stdout.buffer.write(body)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
