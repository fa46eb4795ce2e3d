"""The constants of docs/PROTOCOL.md, written again by hand, and its frames, replayed."""

import re
from pathlib import Path

import pytest

from hostctl_channels.wire import layout, limits, schema
from hostctl_channels.wire import messages as m
from hostctl_channels.wire.framing import encode, encode_end

from .frames import NONCE, asked, feed, golden, greeted, names

DOC = (Path(__file__).parents[3] / "docs" / "PROTOCOL.md").read_text()

REQUESTS = {
    "host-hello": encode(m.hello(), NONCE),
    "host-ping": encode(m.ping(), NONCE),
    "host-exec-streams": encode(m.execute([b"echo", b"it's\n2"], streams=("0", "1")), NONCE),
    "host-exec-held": encode(m.execute([b"true"], streams=m.HELD), NONCE),
    "host-exec-all": encode(
        m.execute(
            [b"id"],
            [(b"A", b"1")],
            stdin=True,
            timeout_s=2.5,
            cwd=b"/tmp",
            user="user",
            usage=True,
        ),
        NONCE,
    ),
    "host-stdin-end": (encode_end(NONCE),),
    "host-signal": encode(m.signal("1", "TERM"), NONCE),
    "host-restart": encode(m.restart("1"), NONCE),
    "host-rescan": encode(m.rescan(), NONCE),
    "host-put": encode(
        m.put(b"/tmp/a b", 5, mode=0o755, mtime_s=1700000000, owner="user", verify=True), NONCE
    ),
    "host-verdict": encode(m.verdict("ab" * 32), NONCE),
    "host-get": encode(m.get(b"/etc/passwd", stat=True), NONCE),
    "host-clock": encode(m.clock(1700000000), NONCE),
    "host-entropy": encode(m.entropy(b"seed"), NONCE),
}

ANSWERS: dict[str, tuple[bytes, list[m.Event]]] = {
    "guest-ready": (b"N", [m.Ready()]),
    "guest-pong": (b"N", [m.Pong()]),
    "guest-started": (b"X", [m.Started()]),
    "guest-begin-stderr": (b"X", [m.Begin(2), m.Data(memoryview(b"oops\n")), m.End()]),
    "guest-exit-3": (b"X", [m.Exit(3, 0, False, None, None)]),
    "guest-exit-held": (b"X", [m.Exit(0, 0, False, None, None, True)]),
    "guest-exit-killed": (b"X", [m.Exit(0, 9, True, (1.5, 0.02), None)]),
    "guest-done": (b"P", [m.Done()]),
    "guest-done-facts": (b"P", [m.Done(0o644, 1700000000.0)]),
    "guest-error": (b"G", [m.Failure(2, "/x: No such file or directory")]),
}


def test_constants_are_those_of_the_spec() -> None:
    assert limits.VERSION == 1
    assert bytes([0x9D, 0x48]) == limits.MAGIC
    assert limits.NONCE_SIZE == 16
    assert limits.PING_SIZE == 4
    assert limits.MAX_LINE == 1024
    assert limits.MAX_WORDS == 1048576
    assert limits.MAX_STDIN == 1048576
    sizes = {"R": 0, "H": 1024, "P": 0, "S": 0, "B": 0, "X": 15, "D": 512, "E": 1024}
    assert {kind.decode(): size for kind, size in limits.MAX_BODY.items()} == sizes
    assert layout.HEADER.size == 24
    assert schema.EXIT.sizeof() == 15


def test_what_runs_is_what_is_declared() -> None:
    assert schema.formats() == layout.FORMATS


@pytest.mark.parametrize("name", names("host"))
def test_golden_requests_are_what_we_send(name: str) -> None:
    assert b"".join(REQUESTS[name]) == golden(name)


@pytest.mark.parametrize("name", names("host"))
def test_golden_requests_parse_back(name: str) -> None:
    declaration = schema.PING if name == "host-ping" else schema.LINE
    assert declaration.build(declaration.parse(golden(name))) == golden(name)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_golden_answers_are_what_we_understand(name: str) -> None:
    kind, events = ANSWERS[name]
    assert feed(asked(kind), golden(name)) == events


def test_the_golden_greeting_makes_a_session_ready() -> None:
    greeted()
    assert "guest-greeting" in names("guest")


def test_every_golden_frame_is_replayed() -> None:
    assert sorted(REQUESTS) == names("host")
    assert sorted([*ANSWERS, "guest-greeting"]) == names("guest")


@pytest.mark.parametrize("name", [*names("host"), *names("guest")])
def test_the_spec_quotes_the_frame(name: str) -> None:
    side, _, title = name.partition("-")
    row = re.search(rf"^\| {title} \| `(.*)` \|$", DOC, re.MULTILINE)
    assert row is not None
    quoted = row[1].replace("⏎", "\n").encode() if side == "host" else bytes.fromhex(row[1])
    assert quoted == golden(name)


def test_the_spec_names_every_kind_of_request() -> None:
    from hostctl_channels.wire.session import ANSWERS as table

    for kind in table:
        assert f"| `{kind.decode()}` " in DOC
