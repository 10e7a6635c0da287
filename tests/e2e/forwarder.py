"""UDP between clients and one server, through a socket that can be told to drop everything."""

from __future__ import annotations

import selectors
import socket
import threading


class Forwarder:
    """Use as a context. `to` is where the server listens; `drops` may be changed at any time.

    Each client has a socket of its own towards the server, so that replies find back.
    """

    def __init__(self) -> None:
        self.drops = False
        self.to: tuple[str, int] | None = None
        self.dropped = 0
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ, None)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._front.getsockname()[1]}"

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._selector.close()
        for one in (self._front, *self._backs.values()):
            one.close()

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.05):
                try:
                    if key.data is None:
                        self._to_server(*self._front.recvfrom(2_048))
                    else:
                        self._to_client(key.fileobj.recv(2_048), key.data)
                except ConnectionRefusedError:
                    continue  # the server is away

    def _to_server(self, data: bytes, client: tuple[str, int]) -> None:
        if self.drops or self.to is None:
            self.dropped += 1
            return
        if client not in self._backs:
            back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.connect(self.to)
            self._backs[client] = back
            self._selector.register(back, selectors.EVENT_READ, client)
        self._backs[client].send(data)

    def _to_client(self, data: bytes, client: tuple[str, int]) -> None:
        if self.drops:
            self.dropped += 1
        else:
            self._front.sendto(data, client)
