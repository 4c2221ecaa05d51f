"""Who may ask over HTTP: anyone that reaches the port, but no page of another site."""

from pathlib import Path

import pytest

from ods.http_guard import SECURITY_HEADERS, own_names, refusal

OWN = frozenset({"controlpoint", "controlpoint.track.example"})


def asked(host: str | None, *, at: str = "127.0.0.1", protocol: str = "HTTP/1.1", **headers: str) -> str:
    """The status of the refusal, or `served`."""
    environ = {"SERVER_PROTOCOL": protocol, **{f"HTTP_{name.upper()}": value for name, value in headers.items()}}
    if host is not None:
        environ["HTTP_HOST"] = host
    refused = refusal(environ, local_address=at, own_names=OWN)
    return "served" if refused is None else refused[0].split()[0]


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:7777", "127.0.0.1", "[::1]:7777", "[::1]", "10.0.0.1:7777", "192.168.1.2"),
        *("localhost:7777", "LOCALHOST", "localhost.", "ods.localhost:7777"),
        *("laptop:7777", "controlpoint", "controlpoint.track.example:7777", "ControlPoint.Track.Example."),
        *("pi.local:7777", "pi.lan", "ods.internal", "ods.home.arpa", "localhost.localdomain"),
    ],
)
def test_a_name_that_no_page_of_the_web_can_have_is_served_at_loopback(host: str) -> None:
    assert asked(host) == "served"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example.com", "evil.example.com:7777", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("evillocal.example", "a.notlan", "home.arpa.example", "controlpoint.evil.example", "127.1", "0x7f.0.0.1"),
    ],
)
@pytest.mark.parametrize("at", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_another_name_that_leads_to_loopback_was_pointed_here_and_is_not_served(host: str, at: str) -> None:
    assert asked(host, at=at) == "421"


@pytest.mark.parametrize("at", ["10.0.0.1", "192.0.2.7", "fe80::1%eth0", "::ffff:10.0.0.1"])
def test_any_name_is_served_at_an_address_that_the_operator_has_opened(at: str) -> None:
    assert asked("ods.track.example:7777", at=at) == "served"


@pytest.mark.parametrize(
    "host", ["", " ", "a b", "a/b", "a,b", "localhost,localhost", "[::1", "::1", "localhost:", "a:123456", "ä", "a@b"]
)
@pytest.mark.parametrize("at", ["127.0.0.1", "10.0.0.1"])
def test_a_malformed_host_is_a_bad_request(host: str, at: str) -> None:
    assert asked(host, at=at) == "400"


def test_no_host_is_served_to_the_programs_of_old_alone() -> None:
    assert asked(None, protocol="HTTP/1.0") == "served"
    assert asked(None, protocol="HTTP/1.0", origin="http://localhost") == "400"
    assert asked(None) == "400"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:7777", "http://localhost:7777"),
        ("LocalHost:7777", "http://localhost:7777"),
        ("127.0.0.1:80", "http://127.0.0.1"),
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("ods.local", "https://ods.local"),
        ("[::1]:7777", "http://[::1]:7777"),
    ],
)
def test_the_page_itself_may_ask(host: str, origin: str) -> None:
    assert asked(host, origin=origin) == "served"


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example.com", "http://localhost", "http://localhost:3000", "http://127.0.0.1:7777", "null", ""),
        *("http://localhost:7777/", "http://localhost:7777.evil.example", "file://", "ws://localhost:7777"),
        "http://evil.example@localhost:7777",
    ],
)
@pytest.mark.parametrize("at", ["127.0.0.1", "10.0.0.1"])
def test_a_page_of_another_origin_may_not(origin: str, at: str) -> None:
    assert asked("localhost:7777", at=at, origin=origin) == "403"


def test_a_page_of_another_site_may_not_load_anything_without_saying_its_origin() -> None:
    """As by an `<img>`: it could not read the answer, but keep ODS busy. Following a link is the user's own doing."""
    assert asked("localhost:7777", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == "403"
    assert asked("localhost:7777", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == "served"
    assert asked("localhost:7777", sec_fetch_site="same-origin", sec_fetch_mode="cors") == "served"
    assert asked("localhost:7777", sec_fetch_site="none", sec_fetch_mode="navigate") == "served"


def test_this_machines_names_are_found_without_asking_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "ControlPoint")
    resolver, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    resolver.write_text("# comment\nsearch Track.Example. lab.example\nnameserver 192.0.2.1\n")
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 cp.home.example controlpoint # it\n0.0.0.0 ads.example\n")
    expected = {"controlpoint", "controlpoint.track.example", "controlpoint.lab.example", "cp.home.example"}
    assert own_names(resolver, hosts) == expected
    assert own_names(tmp_path / "none", tmp_path / "none") == {"controlpoint"}


def test_no_page_may_frame_embed_or_guess_what_is_answered() -> None:
    headers = dict(SECURITY_HEADERS)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not [name for name in headers if name.lower().startswith("access-control")]
