"""The table of a conversation: what may answer what, and where that leads."""

import pytest

from hostctl_channels.errors import LocalProtocolError, RemoteProtocolError
from hostctl_channels.wire import Phase, Session, messages
from hostctl_channels.wire.session import ANSWERS, FINAL

from .frames import NONCE, answering, asked, feed, golden, greeted

SAMPLES: dict[type, str] = {
    messages.Hello: "guest-greeting",
    messages.Pong: "guest-pong",
    messages.Started: "guest-started",
    messages.Begin: "guest-begin-stderr",
    messages.Exit: "guest-exit-3",
    messages.Done: "guest-done",
    messages.Failure: "guest-error",
}


def test_a_greeting_begins_with_a_line_feed() -> None:
    session = Session()
    assert b"".join(session.greet(NONCE)) == b"\n" + golden("host-hello")
    assert session.phase is Phase.GREETING


@pytest.mark.parametrize("kind", sorted(ANSWERS.keys() - {b"H"}))
@pytest.mark.parametrize("event", sorted(SAMPLES.keys() - {messages.Hello}, key=str))
def test_only_the_answers_of_the_table_are_taken(kind: bytes, event: type) -> None:
    session = asked(kind)
    if event in ANSWERS[kind]:
        assert type(feed(session, answering(kind, SAMPLES[event]))[0]) is event
        assert session.phase is (Phase.IDLE if event in FINAL else Phase.BUSY)
    else:
        with pytest.raises(RemoteProtocolError, match="no answer"):
            feed(session, answering(kind, SAMPLES[event]))
        assert session.phase is Phase.LOST


def test_an_answer_nobody_asked_for_is_refused() -> None:
    session = greeted()
    with pytest.raises(RemoteProtocolError):
        feed(session, golden("guest-pong"))


def test_one_request_at_a_time() -> None:
    session = asked(b"N")
    with pytest.raises(LocalProtocolError, match="one request at a time"):
        session.ask(messages.ping(), NONCE)
    assert session.phase is Phase.BUSY


def test_a_request_that_cannot_be_sent_changes_nothing() -> None:
    session = greeted()
    with pytest.raises(LocalProtocolError):
        session.ask(messages.get(b"\0"), NONCE)
    assert session.phase is Phase.IDLE


def test_an_agent_that_begins_anew_ends_the_conversation() -> None:
    session = asked(b"X")
    assert feed(session, golden("guest-ready")) == [messages.Ready()]
    assert session.phase is Phase.LOST
    with pytest.raises(LocalProtocolError):
        session.ask(messages.ping(), NONCE)


def test_a_lost_session_can_be_greeted_again() -> None:
    session = asked(b"N")
    with pytest.raises(RemoteProtocolError):
        feed(session, b"\0" * 24)
    session.greet(NONCE)
    feed(session, b"\0" * 24, golden("guest-greeting"))
    assert session.phase is Phase.IDLE
