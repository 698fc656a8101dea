"""Downloads against a real server that does what servers do, good and bad."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_pypi import FAST, Index, serving

from moim.errors import PullError, StoreError
from moim.local import download as module
from moim.local.download import Limits, Progress, download, progress_so_far, without_secrets
from moim.local.manifest import Digest
from moim.local.sources.pip import Offer
from moim.transport.pools import pool_manager

BODY = random.Random(1).randbytes(300_000)


@pytest.fixture
def index() -> Iterator[Index]:
    with serving() as running:
        yield running


def offer(index: Index) -> Offer:
    return index.add("tiny", "1.0", BODY)


def fetch(index: Index, path: Path, **options: Any) -> Path:
    wheel = offer(index)
    options = {"pool": urllib3.PoolManager(), "limits": FAST, **options}
    download(options.pop("url", wheel.url), wheel.digest, path, **options)
    assert path.read_bytes() == BODY
    return path


def interrupted(index: Index, path: Path, after: int, every: int = 1) -> int:
    """Leaves what a process leaves that was interrupted; gives the durable bytes."""
    limits = msgspec.structs.replace(FAST, checkpoint_bytes=every)

    def stop(progress: Progress) -> None:
        if progress.completed >= after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", 1 << 14)  # a busy machine would read all at once
        with pytest.raises(KeyboardInterrupt):
            fetch(index, path, limits=limits, on_progress=stop)
    index.log.clear()
    return progress_so_far(path).completed


def test_a_file_arrives(index: Index, tmp_path: Path) -> None:
    seen: list[Progress] = []
    fetch(index, tmp_path / "x", on_progress=seen.append)
    assert seen[-1] == Progress("download", len(BODY), len(BODY))
    assert [p.completed for p in seen] == sorted(p.completed for p in seen)
    assert index.log[0].headers["accept-encoding"] == "identity"
    assert "range" not in index.log[0].headers


def test_what_is_there_is_not_asked_for_again(index: Index, tmp_path: Path) -> None:
    fetch(index, tmp_path / "x")
    index.log.clear()
    fetch(index, tmp_path / "x")
    assert index.log == []


def test_a_resumed_download_asks_for_the_rest_only(index: Index, tmp_path: Path) -> None:
    durable = interrupted(index, tmp_path / "x", 150_000)
    assert durable >= 150_000
    fetch(index, tmp_path / "x")
    (asked,) = index.log
    assert asked.headers["range"] == f"bytes={durable}-"
    assert asked.headers["if-range"] == '"v1"'
    assert asked.sent == len(BODY) - durable


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(20_000, 200_000), max_size=4), ranges=st.booleans())
def test_however_often_it_breaks_the_bytes_are_right(
    cuts: list[int], ranges: bool, tmp_path: Path
) -> None:
    path = tmp_path / "law"
    module.remove_partial(path)
    with serving() as index:
        index.ranges = ranges
        for cut in cuts:
            interrupted(index, path, cut, every=50_000)
        fetch(index, path)


def test_a_broken_connection_is_taken_up_where_it_broke(index: Index, tmp_path: Path) -> None:
    index.cut_after, index.cuts = 100_000, 2
    fetch(index, tmp_path / "x")
    assert [asked.sent for asked in index.log] == [100_000, 100_000, 100_000]


def test_a_server_that_always_breaks_is_given_up(index: Index, tmp_path: Path) -> None:
    index.cut_after, index.ranges = 100_000, False
    with pytest.raises(PullError, match="broke off"):
        fetch(index, tmp_path / "x")
    assert len(index.log) <= 2 * FAST.attempts


def test_a_stalled_connection_is_given_up_and_taken_up(index: Index, tmp_path: Path) -> None:
    index.stall_after, index.stalls = 100_000, 1
    fetch(index, tmp_path / "x")
    assert index.log[1].headers["range"] == "bytes=100000-"


def test_moims_own_connections_notice_a_stall(index: Index, tmp_path: Path) -> None:
    index.stall_after = 0
    with pytest.raises(PullError, match="stalled"):
        fetch(index, tmp_path / "x", pool=pool_manager())


def test_a_server_that_always_stalls_is_given_up(index: Index, tmp_path: Path) -> None:
    index.stall_after = 0
    with pytest.raises(PullError, match="stalled"):
        fetch(index, tmp_path / "x")
    assert len(index.log) == FAST.attempts


def test_a_server_without_ranges_starts_over(index: Index, tmp_path: Path) -> None:
    assert interrupted(index, tmp_path / "x", 100_000)
    index.ranges = False
    fetch(index, tmp_path / "x")
    assert index.log[0].sent == len(BODY)


def test_another_file_there_now_starts_over(index: Index, tmp_path: Path) -> None:
    assert interrupted(index, tmp_path / "x", 100_000)
    index.etag = '"v2"'
    fetch(index, tmp_path / "x")
    assert index.log[0].sent == len(BODY)


@pytest.mark.parametrize("etag", [None, 'W/"weak"', "unquoted"])
def test_without_a_strong_etag_the_hash_decides(
    index: Index, tmp_path: Path, etag: str | None
) -> None:
    index.etag = etag
    durable = interrupted(index, tmp_path / "x", 100_000)
    fetch(index, tmp_path / "x")
    assert "if-range" not in index.log[0].headers
    assert index.log[0].sent == len(BODY) - durable


@pytest.mark.parametrize(
    "lie", ["bytes 0-299999/300000", "bytes 5-6/7", "bytes */300000", "nonsense", "bytes 1-2/*"]
)
def test_a_wrong_range_starts_over(index: Index, tmp_path: Path, lie: str) -> None:
    assert interrupted(index, tmp_path / "x", 100_000)
    index.content_range = lie
    fetch(index, tmp_path / "x")
    assert "range" not in index.log[-1].headers


def test_a_range_beyond_the_end_starts_over(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert interrupted(index, path, 100_000)
    grown = path.read_bytes() + bytes(300_000)
    path.write_bytes(grown)
    sidecar = path.with_name("x.json")
    sidecar.write_bytes(
        msgspec.json.encode(
            {"digest": str(Digest.of(BODY)), "completed": 350_000, "size": None, "etag": ""}
        )
    )
    fetch(index, path)


def test_a_server_that_declares_less_is_found_out(index: Index, tmp_path: Path) -> None:
    index.declared_length = 1000
    with pytest.raises(PullError, match="thrown away"):
        fetch(index, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_declares_more_does_no_harm(index: Index, tmp_path: Path) -> None:
    index.declared_length = len(BODY) + 1000
    fetch(index, tmp_path / "x")  # the next range begins at the end, and the hash is right
    assert index.log[-1].headers["range"] == f"bytes={len(BODY)}-"


def test_a_length_that_is_not_the_known_one_is_refused_at_once(
    index: Index, tmp_path: Path
) -> None:
    with pytest.raises(PullError, match="300000 bytes where 5 are expected"):
        fetch(index, tmp_path / "x", size=5)
    assert len(index.log) == 1


def test_too_large_a_file_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(PullError, match="the limit is 1000"):
        fetch(index, tmp_path / "x", limits=msgspec.structs.replace(FAST, max_bytes=1000))


def test_without_a_length_everything_is_read(index: Index, tmp_path: Path) -> None:
    index.chunked = True
    fetch(index, tmp_path / "x")


def test_without_a_length_the_limit_holds(index: Index, tmp_path: Path) -> None:
    index.chunked = True
    with pytest.raises(PullError, match="more than 1000 bytes"):
        fetch(index, tmp_path / "x", limits=msgspec.structs.replace(FAST, max_bytes=1000))
    assert not (tmp_path / "x").exists()


def test_wrong_bytes_are_thrown_away(index: Index, tmp_path: Path) -> None:
    index.served = BODY[:-1] + b"\0"
    with pytest.raises(PullError, match=r"have the hash sha256:.* thrown away") as caught:
        fetch(index, tmp_path / "x")
    assert "Pull again" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    index.served = None
    fetch(index, tmp_path / "x")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"digest":1}', b"\xff\xfe", b'{"completed":-1}'])
def test_a_torn_checkpoint_counts_as_none(index: Index, tmp_path: Path, damage: bytes) -> None:
    assert interrupted(index, tmp_path / "x", 100_000)
    (tmp_path / "x.json").write_bytes(damage)
    fetch(index, tmp_path / "x")
    assert index.log[0].sent == len(BODY)


def test_a_file_shorter_than_its_checkpoint_starts_over(index: Index, tmp_path: Path) -> None:
    assert interrupted(index, tmp_path / "x", 100_000)
    os.truncate(tmp_path / "x", 10)
    fetch(index, tmp_path / "x")


def test_bytes_after_the_checkpoint_are_not_trusted(index: Index, tmp_path: Path) -> None:
    durable = interrupted(index, tmp_path / "x", 100_000)
    with (tmp_path / "x").open("ab") as file:
        file.write(bytes(len(BODY)))
    fetch(index, tmp_path / "x")
    assert index.log[0].headers["range"] == f"bytes={durable}-"


@pytest.mark.parametrize("status", [404, 410, 403, 418])
def test_a_refusal_is_final(index: Index, tmp_path: Path, status: int) -> None:
    index.statuses = [status]
    with pytest.raises(PullError) as caught:
        fetch(index, tmp_path / "x")
    assert caught.value.status == status
    assert caught.value.hint
    assert len(index.log) == 1


def test_a_range_that_nobody_asked_for_starts_over(index: Index, tmp_path: Path) -> None:
    index.statuses = [206]
    fetch(index, tmp_path / "x")
    assert len(index.log) == 2


def test_a_busy_server_is_asked_again(index: Index, tmp_path: Path) -> None:
    index.statuses = [503, 429]
    fetch(index, tmp_path / "x")
    assert len(index.log) == 3


def test_a_server_that_stays_busy_is_given_up(index: Index, tmp_path: Path) -> None:
    index.statuses = [503] * 20
    with pytest.raises(PullError, match="status 503"):
        fetch(index, tmp_path / "x")
    assert len(index.log) == FAST.attempts


def test_encoded_bytes_are_refused(index: Index, tmp_path: Path) -> None:
    index.encoding = "gzip"
    with pytest.raises(PullError, match="encoded"):
        fetch(index, tmp_path / "x")


def test_a_login_is_used_and_not_shown(index: Index, tmp_path: Path) -> None:
    index.login = "me:s3cret"
    address = offer(index).url.replace("http://", "http://me:s3cret@")
    fetch(index, tmp_path / "x", url=address)
    index.login = "other:password"
    with pytest.raises(PullError) as caught:
        fetch(index, tmp_path / "y", url=address)
    assert caught.value.status == 401
    assert "s3cret" not in str(caught.value) + repr(caught.value)


def test_credentials_are_asked_for_once_they_are_needed(index: Index, tmp_path: Path) -> None:
    index.login = "me:s3cret"
    asked: list[str] = []

    def credentials(url: str) -> str:
        asked.append(url)
        return "Basic bWU6czNjcmV0"

    fetch(index, tmp_path / "x", credentials=credentials)
    assert asked == [offer(index).url]


def test_a_redirect_to_another_host_gets_no_credentials(index: Index, tmp_path: Path) -> None:
    with serving() as other:
        index.redirect_to = offer(other).url + "?signature=abc"
        index.login = "me:s3cret"
        fetch(index, tmp_path / "x", url=offer(index).url.replace("http://", "http://me:s3cret@"))
        assert "authorization" in index.log[0].headers
        assert other.log
        assert all("authorization" not in asked.headers for asked in other.log)


def test_redirects_end(index: Index, tmp_path: Path) -> None:
    index.redirect_to = offer(index).url
    with pytest.raises(PullError, match="redirects without end"):
        fetch(index, tmp_path / "x")
    assert len(index.log) == FAST.redirects + 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_to_something_else_is_not_followed(
    index: Index, tmp_path: Path, target: str
) -> None:
    index.redirect_to = target
    with pytest.raises(PullError, match="not safe"):
        fetch(index, tmp_path / "x")


def test_nobody_there(index: Index, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/x.whl"
        with pytest.raises(PullError, match="refused") as caught:
            fetch(index, tmp_path / "x", url=address)
    assert "network" in caught.value.hint


def test_an_unknown_host(index: Index, tmp_path: Path) -> None:
    with pytest.raises(PullError, match="nobody knows that host"):
        fetch(index, tmp_path / "x", url="http://files.invalid/x.whl")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://", "x", "http://[::1/x", ""])
def test_an_address_that_is_none(index: Index, tmp_path: Path, url: str) -> None:
    with pytest.raises(PullError):
        fetch(index, tmp_path / "x", url=url)


def test_what_the_size_check_raises_ends_the_download(index: Index, tmp_path: Path) -> None:
    told: list[int] = []

    def refuse(size: int) -> None:
        told.append(size)
        raise StoreError("no room")

    with pytest.raises(StoreError, match="no room"):
        fetch(index, tmp_path / "x", on_size=refuse)
    assert told == [len(BODY)]


@given(st.text(max_size=40))
def test_an_address_is_shown_without_its_secrets(text: str) -> None:
    shown = without_secrets(f"https://user:hunter2@host.example/p?token=hunter2{text}#hunter2")
    assert "hunter2" not in shown


def test_limits_say_when_to_make_durable(index: Index, tmp_path: Path) -> None:
    saved: list[int] = []

    def watch(progress: Progress) -> None:
        saved.append(progress_so_far(tmp_path / "x").completed)

    fetch(index, tmp_path / "x", limits=Limits(checkpoint_bytes=100_000), on_progress=watch)
    assert any(0 < count < len(BODY) for count in saved)


def test_an_interruption_while_checking_costs_nothing(index: Index, tmp_path: Path) -> None:
    body = random.Random(2).randbytes(3 << 20)  # more than is checked at once
    wheel, path = index.add("large", "1.0", body), tmp_path / "x"
    pool = urllib3.PoolManager()
    index.cut_after = 5 << 19
    with pytest.raises(PullError):
        download(
            wheel.url,
            wheel.digest,
            path,
            pool=pool,
            limits=msgspec.structs.replace(FAST, attempts=1, enough=4 << 20),
        )
    index.cut_after = None
    kept = progress_so_far(path)
    assert kept == Progress("download", 5 << 19, len(body))

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(wheel.url, wheel.digest, path, pool=pool, on_progress=interrupt)
    assert progress_so_far(path) == kept
    index.log.clear()
    download(wheel.url, wheel.digest, path, pool=pool)
    assert path.read_bytes() == body
    assert [asked.headers["range"] for asked in index.log] == [f"bytes={5 << 19}-"]


def test_where_nothing_arrived_nothing_is_left(index: Index, tmp_path: Path) -> None:
    def refuse(size: int) -> None:
        raise StoreError("no room")

    with pytest.raises(StoreError):
        fetch(index, tmp_path / "x", on_size=refuse)
    index.statuses = [404]
    with pytest.raises(PullError):
        fetch(index, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
    fetch(index, tmp_path / "x")
