# Generated from tests/aio/test_listener.py by tools/async_to_sync.py: never edit.

"""The listener on a real server, its connection cut for real."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsession._concurrency import Event, sleep
from pgsession._sync.listener import Listener
from pgsession.errors import ListenerError
from tests.crew import Crew
from tests.fault_proxy import FaultProxy

from .helpers import eventually

PATIENCE = 20  # seconds after which something that has to happen counts as not happening


class Recorder:
    """Keeps what the callbacks were told, in order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = Event()

    def note(self, entry: Any) -> None:
        self.seen.append(entry)
        self._changed.set()

    def on_notification(self, notification: psycopg.Notify) -> None:
        self.note(notification.payload)

    def on_out_of_sync(self, channel: str) -> None:
        self.note(("out of sync", channel))

    def on_error(self, channel: str, error: Exception) -> None:
        self.note(("error", channel))

    def on_done(self, channel: str) -> None:
        self.note(("done", channel))

    def on_lost(self) -> None:
        self.note("lost")

    @property
    def callbacks(self) -> dict[str, Callable[..., object]]:
        return {"on_out_of_sync": self.on_out_of_sync, "on_error": self.on_error, "on_done": self.on_done}

    def until(self, entry: Any, count: int = 1) -> None:
        """Wait until `entry` was noted `count` times."""
        while True:
            self._changed.clear()
            if self.seen.count(entry) >= count:
                return
            if not self._changed.wait(PATIENCE):
                raise AssertionError(f"{entry!r} is missing; seen: {self.seen!r}")


def run_sql(dsn: str, statement: str, *params: Any) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement, params or None)


def notify(dsn: str, channel: str, *payloads: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for payload in payloads:
            connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))


def terminate(dsn: str, listener: Listener) -> None:
    """Returns when the process is gone."""
    run_sql(dsn, "SELECT pg_terminate_backend(%s, 10000)", listener.pid)


def wait_for_bytes(listener: Listener, count: int) -> None:
    """Until the listener's socket holds as many that it has not read."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    connection = listener._loop._connection
    assert connection is not None
    end = time.monotonic() + PATIENCE
    while struct.unpack("i", fcntl.ioctl(connection.fileno, termios.FIONREAD, b"1234"))[0] < count:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def listener(dsn: str) -> Iterator[Listener]:
    with Listener(dsn) as listener:
        yield listener


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


# -- delivering ----------------------------------------------------------------------------------------------


def test_notifications_arrive_in_order(dsn: str, listener: Listener, recorder: Recorder) -> None:
    listener.listen("numbers", recorder.on_notification)
    numbers = [str(number) for number in range(500)]
    notify(dsn, "numbers", *numbers)
    recorder.until("499")
    assert recorder.seen == numbers


def test_a_notification_tells_its_channel_payload_and_sender(listener: Listener) -> None:
    recorder = Recorder()
    listener.listen("Straße \"1\"; '%s'", recorder.note)
    listener.notify("Straße \"1\"; '%s'", "ünï %s")
    expected = psycopg.Notify("Straße \"1\"; '%s'", "ünï %s", listener.pid or 0)
    recorder.until(expected)


def test_many_channels_share_one_connection(dsn: str, listener: Listener, recorder: Recorder) -> None:
    pid = listener.pid
    for number in range(200):
        listener.listen(f"channel {number}", lambda n: recorder.note((n.channel, n.payload)))
    listener.listen("end", recorder.on_notification)
    with psycopg.connect(dsn) as connection:
        for number in range(0, 200, 3):
            connection.execute("SELECT pg_notify(%s, 'x')", (f"channel {number}",))
        connection.execute("NOTIFY stranger")
        connection.execute("NOTIFY \"end\", 'end'")
    recorder.until("end")
    assert recorder.seen == [(f"channel {number}", "x") for number in range(0, 200, 3)] + ["end"]
    assert listener.pid == pid


def test_several_listen_to_one_channel(dsn: str, listener: Listener, recorder: Recorder) -> None:
    first, second = Recorder(), Recorder()
    listener.listen("shared", first.on_notification, on_done=first.on_done)
    listener.listen("shared", second.on_notification, on_done=second.on_done)
    notify(dsn, "shared", "1")
    first.until("1")
    second.until("1")
    listener.unlisten("shared", first.on_notification)
    notify(dsn, "shared", "2")
    second.until("2")
    assert first.seen == ["1", ("done", "shared")]
    listener.unlisten("shared")
    assert second.seen == ["1", "2", ("done", "shared")]


def test_nothing_comes_after_unlisten(dsn: str, listener: Listener, recorder: Recorder) -> None:
    listener.listen("stays", recorder.on_notification)
    listener.listen("goes", recorder.on_notification, **recorder.callbacks)
    notify(dsn, "goes", "heard")
    recorder.until("heard")
    listener.unlisten("goes")
    notify(dsn, "goes", "unheard")
    notify(dsn, "stays", "end")
    recorder.until("end")
    assert recorder.seen == ["heard", ("done", "goes"), "end"]
    listener.unlisten("goes")
    listener.unlisten("never heard of")
    assert listener.execute("SELECT pg_listening_channels()") == [("stays",)]


def test_listening_and_unlistening_while_notifications_flow(dsn: str, listener: Listener) -> None:
    steady = Recorder()
    listener.listen("steady", steady.on_notification)
    numbers = [str(number) for number in range(300)]
    talker = threading.Thread(target=notify, args=(dsn, "steady", *numbers))
    talker.start()

    def come_and_go(name: str) -> None:
        for _ in range(20):
            mine = Recorder()
            listener.listen(name, mine.on_notification, on_done=mine.on_done)
            listener.notify(name, "hello")
            mine.until("hello")
            listener.unlisten(name)
            assert mine.seen == ["hello", ("done", name)]

    with Crew() as crew:
        for number in range(4):
            crew.start(come_and_go, f"guest {number}")
    steady.until("299")
    talker.join()
    assert steady.seen == numbers


def test_notifications_during_a_command_keep_their_order(dsn: str, listener: Listener) -> None:
    recorder = Recorder()
    listener.listen("numbers", recorder.on_notification)
    numbers = [str(number) for number in range(200)]
    talker = threading.Thread(target=notify, args=(dsn, "numbers", *numbers))
    talker.start()
    for _ in range(50):
        listener.execute("SELECT pg_sleep(0.001)")
    talker.join()
    recorder.until("199")
    assert recorder.seen == numbers


def test_notify_query_belongs_to_the_callers_transaction(
    dsn: str, listener: Listener, recorder: Recorder
) -> None:
    listener.listen("deals", recorder.on_notification)
    with psycopg.connect(dsn) as connection:
        connection.execute(*listener.notify_query("deals", "off"))
        connection.rollback()
        connection.execute(*Listener.notify_query("deals", "on"))
    recorder.until("on")
    assert recorder.seen == ["on"]


# -- callbacks -----------------------------------------------------------------------------------------------


def test_a_callback_that_raises_ends_nothing(
    dsn: str, listener: Listener, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(notification: psycopg.Notify) -> None:
        recorder.on_notification(notification)
        raise LookupError("of the callback's own")

    def complain(channel: str, *_: object) -> None:
        raise LookupError("of the callback's own")

    listener.add_lost_hook(lambda: complain("lost"))
    listener.listen("trap", fail, on_out_of_sync=complain, on_error=complain, on_done=complain)
    notify(dsn, "trap", "1", "2")
    recorder.until("2")
    terminate(dsn, listener)
    listener.listen("trap", recorder.on_notification)
    notify(dsn, "trap", "3")
    recorder.until("3", 2)
    listener.unlisten("trap")
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 7  # 3 notifications, the hook, the error, out of sync, done
    assert all("of the callback's own" in str(record.exc_info[1]) for record in failures if record.exc_info)


def test_a_callback_may_use_the_listener(dsn: str, listener: Listener, recorder: Recorder) -> None:
    def on_first(notification: psycopg.Notify) -> None:
        listener.listen("second", recorder.on_notification, on_done=recorder.on_done)
        recorder.note(listener.execute("SELECT 1"))
        listener.notify("second", "from the callback")
        listener.unlisten("first")

    listener.listen("first", on_first, on_done=recorder.on_done)
    notify(dsn, "first", "go")
    recorder.until("from the callback")
    assert recorder.seen == [[(1,)], ("done", "first"), "from the callback"]


def test_a_callback_may_close_the_listener(dsn: str, recorder: Recorder) -> None:
    listener = Listener(dsn)

    def on_notification(notification: psycopg.Notify) -> None:
        listener.close()
        recorder.note("asked")

    listener.open()
    listener.listen("bell", on_notification, on_done=recorder.on_done)
    notify(dsn, "bell", "1", "2")
    recorder.until(("done", "bell"))
    listener.close()
    assert recorder.seen == ["asked", ("done", "bell")]


# -- losing the connection -----------------------------------------------------------------------------------


def test_out_of_sync_comes_before_the_first_new_notification(
    dsn: str, listener: Listener, recorder: Recorder
) -> None:
    def on_out_of_sync(channel: str) -> None:
        notify(dsn, channel, "after LISTEN")  # it has arrived, before this callback is over
        recorder.on_out_of_sync(channel)

    listener.add_lost_hook(recorder.on_lost)
    listener.listen(
        "news", recorder.on_notification, on_out_of_sync=on_out_of_sync, on_error=recorder.on_error
    )
    notify(dsn, "news", "before")
    recorder.until("before")
    terminate(dsn, listener)
    recorder.until("after LISTEN")
    assert recorder.seen == ["before", "lost", ("error", "news"), ("out of sync", "news"), "after LISTEN"]


def test_what_was_heard_before_the_loss_is_delivered(
    dsn: str, listener: Listener, recorder: Recorder
) -> None:
    def on_notification(notification: psycopg.Notify) -> None:
        recorder.on_notification(notification)
        if notification.payload == "1":  # the listener reads nothing until this returns
            notify(dsn, "news", "2", "3")
            wait_for_bytes(listener, 2 * len("A....pid.news.2."))
            terminate(dsn, listener)

    listener.add_lost_hook(recorder.on_lost)
    listener.listen("news", on_notification, **recorder.callbacks)
    notify(dsn, "news", "1")
    recorder.until(("out of sync", "news"))
    assert recorder.seen.index("lost") < recorder.seen.index(("error", "news"))
    recorder.seen.remove("lost")
    assert recorder.seen == ["1", "2", "3", ("error", "news"), ("out of sync", "news")]


def test_all_channels_are_back_before_any_is_told(dsn: str, listener: Listener) -> None:
    recorder = Recorder()
    names = [f"c{number}" for number in range(20)]
    for name in names:
        listener.listen(name, recorder.on_notification, on_out_of_sync=recorder.on_out_of_sync)

    def on_out_of_sync(channel: str) -> None:
        recorder.note(listener.execute("SELECT count(*) FROM pg_listening_channels()"))

    listener.listen("last", recorder.on_notification, on_out_of_sync=on_out_of_sync)
    listener.reconnect()
    recorder.until([(21,)])
    assert recorder.seen == [*(("out of sync", name) for name in names), [(21,)]]


def test_what_left_meanwhile_is_not_listened_to_again(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo) as listener:
            listener.listen("stays", recorder.on_notification, on_out_of_sync=recorder.on_out_of_sync)
            listener.listen("goes", recorder.on_notification, **recorder.callbacks)
            proxy.refuse()
            proxy.cut()
            recorder.until(("error", "goes"), 2)
            listener.unlisten("goes")
            proxy.forward()
            recorder.until(("out of sync", "stays"))
            assert listener.execute("SELECT pg_listening_channels()") == [("stays",)]
    assert ("out of sync", "goes") not in recorder.seen
    assert recorder.seen.count(("done", "goes")) == 1


def test_it_reconnects_as_often_as_it_takes(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo, reconnect_delay=0.05) as listener:
            listener.add_lost_hook(recorder.on_lost)
            listener.listen("news", recorder.on_notification, **recorder.callbacks)
            for times in range(1, 4):
                proxy.refuse()
                proxy.cut()
                recorder.until("lost", times)
                assert not listener.connected
                with pytest.raises(psycopg.OperationalError):
                    listener.notify("news", "nobody sends this")
                recorder.until(("error", "news"), 3 * times)
                proxy.forward()
                recorder.until(("out of sync", "news"), times)
                notify(dsn, "news", f"news {times}")
                recorder.until(f"news {times}")
            assert recorder.seen.count("lost") == 3


def test_a_silent_connection_is_found_out_by_a_command(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo) as listener:
            listener.add_lost_hook(recorder.on_lost)
            listener.listen("news", recorder.on_notification, **recorder.callbacks)
            proxy.lose()
            notify(dsn, "news", "lost")
            with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
                listener.execute("SELECT 1", timeout=0.2)
            recorder.until(("out of sync", "news"))
            assert recorder.seen == ["lost", ("error", "news"), ("out of sync", "news")]
            notify(dsn, "news", "found")
            recorder.until("found")


def test_a_silent_connection_is_found_out_by_the_health_check(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo, health_check_interval=0.05, command_timeout=1) as listener:
            listener.listen("news", recorder.on_notification, on_out_of_sync=recorder.on_out_of_sync)
            pid = listener.pid
            sleep(0.2)
            assert listener.pid == pid
            proxy.lose()
            recorder.until(("out of sync", "news"))
            notify(dsn, "news", "found")
            recorder.until("found")


def test_a_silent_connection_can_be_given_up(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo) as listener:
            listener.listen("news", recorder.on_notification, on_out_of_sync=recorder.on_out_of_sync)
            proxy.lose()
            listener.reconnect()
            recorder.until(("out of sync", "news"))
            notify(dsn, "news", "found")
            recorder.until("found")


def test_a_server_that_stops_answering_while_it_reconnects(dsn: str, recorder: Recorder) -> None:
    """A connection is accepted and then nothing: each attempt is bounded, and the last one works."""
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo, connect_timeout=2) as listener:
            listener.listen("news", recorder.on_notification, **recorder.callbacks)
            proxy.freeze()
            proxy.cut()
            recorder.until(("error", "news"), 2)
            proxy.forward()
            recorder.until(("out of sync", "news"))


def test_listening_to_a_new_channel_waits_for_the_connection(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo) as listener:
            listener.listen("old", recorder.on_notification, **recorder.callbacks)
            proxy.refuse()
            proxy.cut()
            recorder.until(("error", "old"))
            with pytest.raises(TimeoutError):
                listener.listen("impatient", recorder.on_notification, **recorder.callbacks, timeout=0.05)

            def listen_late() -> None:
                listener.listen("new", recorder.on_notification, **recorder.callbacks)
                recorder.note("listening")

            with Crew() as crew:
                crew.start(listen_late)
                proxy.forward()
            notify(dsn, "new", "heard")
            recorder.until("heard")
            channels = listener.execute("SELECT pg_listening_channels() ORDER BY 1")
            assert channels == [("new",), ("old",)]
    assert ("out of sync", "new") not in recorder.seen
    assert ("done", "impatient") not in recorder.seen


def test_a_callback_cannot_listen_without_a_connection(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(proxy.conninfo) as listener:

            def on_error(channel: str, error: Exception) -> None:
                try:
                    listener.listen("new", recorder.on_notification)
                except psycopg.OperationalError:
                    recorder.note("refused")

            listener.listen("old", recorder.on_notification, on_error=on_error)
            proxy.refuse()
            proxy.cut()
            recorder.until("refused")
            proxy.forward()


# -- commands ------------------------------------------------------------------------------------------------


def test_commands_run_on_the_listeners_own_connection(listener: Listener) -> None:
    assert listener.execute("SELECT pg_backend_pid(), %s::int", [5]) == [(listener.pid, 5)]
    assert listener.execute("SET application_name = 'x'") == []


def test_a_failing_command_costs_nothing_but_itself(listener: Listener) -> None:
    pid = listener.pid
    with pytest.raises(psycopg.errors.DivisionByZero):
        listener.execute("SELECT 1 / 0")
    assert listener.execute("SELECT pg_backend_pid()") == [(pid,)]


def test_its_own_notification_comes_after_the_earlier_ones(dsn: str, listener: Listener) -> None:
    """What a proof of sync rests on."""
    recorder = Recorder()
    listener.listen("events", recorder.on_notification)
    listener.listen("proofs", recorder.on_notification)
    for number in range(50):
        notify(dsn, "events", f"event {number}")
        listener.notify("proofs", f"proof {number}")
        recorder.until(f"proof {number}")
    expected = [entry for number in range(50) for entry in (f"event {number}", f"proof {number}")]
    assert recorder.seen == expected


def test_both_ends_watch_the_connection(dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        with Listener(make_conninfo(proxy.conninfo, application_name="ear")) as listener:
            rows = listener.execute("SHOW application_name")
            assert rows == [("ear",)]
            rows = listener.execute("SHOW idle_session_timeout")
            assert rows == [("0",)]


# -- opening and closing -------------------------------------------------------------------------------------


def test_open_fails_where_nobody_answers(dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        proxy.refuse()
        listener = Listener(proxy.conninfo)
        with pytest.raises(psycopg.OperationalError):
            listener.open()
        with pytest.raises(ListenerError):
            listener.listen("x", print)
        listener.close()


def test_open_is_bounded_where_the_server_says_nothing(dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        proxy.freeze()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            Listener(proxy.conninfo, connect_timeout=2).open()


def test_the_right_one_of_several_hosts_is_taken(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as dead, FaultProxy(dsn) as alive:
        dead.refuse()
        several = make_conninfo(alive.conninfo, host="127.0.0.1,127.0.0.1", port=f"{dead.port},{alive.port}")
        with Listener(several) as listener:
            listener.listen("news", recorder.on_notification, **recorder.callbacks)
            dead.forward()
            alive.refuse()
            alive.cut()
            recorder.until(("out of sync", "news"))
            assert dead.connections == 1


def test_use_before_and_after(dsn: str, recorder: Recorder) -> None:
    listener = Listener(dsn)
    with pytest.raises(ListenerError):
        listener.listen("x", recorder.on_notification)
    listener.open()
    listener.open()
    listener.listen("x", recorder.on_notification, on_done=recorder.on_done)
    listener.close()
    listener.close()
    assert recorder.seen == [("done", "x")]
    assert not listener.connected
    assert listener.pid is None
    listener.reconnect()
    with pytest.raises(ListenerError):
        listener.listen("x", recorder.on_notification)
    with pytest.raises(ListenerError):
        listener.unlisten("x")
    with pytest.raises(ListenerError):
        listener.notify("x")
    never_opened = Listener(dsn)
    never_opened.close()
    with pytest.raises(ListenerError):
        never_opened.open()


@pytest.mark.parametrize("channel", ["", "x" * 64, "ä" * 32, "a\0b"])
def test_bad_channels(listener: Listener, channel: str) -> None:
    with pytest.raises(ValueError, match="channel"):
        listener.listen(channel, print)
    with pytest.raises(ValueError, match="channel"):
        listener.unlisten(channel)
    with pytest.raises(ValueError, match="channel"):
        listener.notify_query(channel)


def test_payloads_have_bounds(listener: Listener, recorder: Recorder) -> None:
    listener.listen("big", recorder.on_notification)
    listener.notify("big", "x" * 7999)
    recorder.until("x" * 7999)
    with pytest.raises(ValueError, match="7999"):
        listener.notify("big", "x" * 8000)
    with pytest.raises(ValueError, match="7999"):
        listener.notify("big", "ä" * 4000)
    with pytest.raises(ValueError, match="NUL"):
        listener.notify("big", "\0")


def test_close_while_reconnecting(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        listener = Listener(proxy.conninfo, reconnect_delay=3600)
        listener.open()
        listener.listen("news", recorder.on_notification, **recorder.callbacks)
        proxy.refuse()
        proxy.cut()
        recorder.until(("error", "news"), 3)
        listener.close(timeout=PATIENCE)
        assert recorder.seen[-1] == ("done", "news")


def test_close_while_a_server_does_not_let_it_in(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        listener = Listener(proxy.conninfo, connect_timeout=3600)
        listener.open()
        listener.listen("news", recorder.on_notification, **recorder.callbacks)
        proxy.freeze()
        proxy.cut()
        recorder.until(("error", "news"))
        while not proxy.connections:
            sleep(0.001)
        listener.close(timeout=3600)
        proxy.cut()  # for a thread, which cannot be cancelled
        recorder.until(("done", "news"))
        assert recorder.seen[1:] == [("done", "news")]


def test_close_while_a_command_gets_no_answer(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        listener = Listener(proxy.conninfo, command_timeout=3600)
        listener.open()
        begun = Event()

        def on_notification(notification: psycopg.Notify) -> None:
            proxy.lose()
            begun.set()
            try:
                listener.execute("SELECT 1")
            except psycopg.OperationalError:
                recorder.note("given up")

        listener.listen("news", on_notification, on_done=recorder.on_done)
        notify(dsn, "news", "x")
        assert begun.wait(PATIENCE)
        listener.close(timeout=PATIENCE)
        assert recorder.seen == ["given up", ("done", "news")]


def test_those_who_wait_hear_of_the_end(dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        listener = Listener(proxy.conninfo)
        listener.open()
        proxy.refuse()
        proxy.cut()

        def listen() -> None:
            with pytest.raises(ListenerError):
                listener.listen("never", print)

        with Crew() as crew:
            for _ in range(5):
                crew.start(listen)
            listener.close(timeout=PATIENCE)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_nothing_is_left_behind(dsn: str, recorder: Recorder) -> None:
    with FaultProxy(dsn) as proxy:
        descriptors: list[int] = []
        for _ in range(5):
            recorder = Recorder()
            with Listener(proxy.conninfo) as listener:
                listener.listen("news", recorder.on_notification, **recorder.callbacks)
                proxy.cut()
                recorder.until(("out of sync", "news"))
            descriptors.append(_descriptors(proxy))
        assert not [thread for thread in threading.enumerate() if thread.name == "pgsession listener"]

        def no_more_than_before() -> bool:
            return _descriptors(proxy) <= descriptors[1]

        eventually(
            no_more_than_before, "the closing of descriptors"
        )  # the proxy closes its own a moment later


def _descriptors(proxy: FaultProxy) -> int:
    return len(os.listdir("/proc/self/fd")) - 2 * proxy.connections


def test_a_standby_is_refused(own_server: Callable[..., Any]) -> None:
    server = own_server()
    (server.folder / "standby.signal").touch()
    server.restart()
    with pytest.raises(ListenerError, match="standby"):
        Listener(server.conninfo).open()


def test_of_primary_and_standby_the_primary_is_taken(own_server: Callable[..., Any], dsn: str) -> None:
    server = own_server(tcp=True)
    (server.folder / "standby.signal").touch()
    server.restart()
    standby = conninfo_to_dict(server.conninfo)
    with FaultProxy(dsn) as primary, FaultProxy(server.conninfo) as other:
        several = make_conninfo(
            primary.conninfo,
            host="127.0.0.1,127.0.0.1",
            port=f"{other.port},{primary.port}",
            password=conninfo_to_dict(dsn).get("password") or standby["password"],
        )
        with Listener(several) as listener:
            assert listener.execute("SELECT pg_is_in_recovery()") == [(False,)]
            assert primary.connections == 1
