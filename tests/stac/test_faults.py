from __future__ import annotations

import json
import logging
import random
import socket
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context

import numpy as np
import pytest
from rasterio.errors import RasterioIOError

from stac_cloudmask.errors import BandNotFoundError, ReadError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac import gdal, providers
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.gdal import gdal_env
from stac_cloudmask.stac.providers import sign
from stac_cloudmask.stac.reader import open_scene
from tests.stac.items import genuine
from tests.stac.range_server import serve
from tests.stac.rasters import digital_numbers, item_of, scl_codes, write

LOADERS = ["stackstac", "odc"]
SHAPE = (1400, 300)
NAMES = ["blue", "red"]
PATIENT = RetryPolicy(seconds=20, pause=0.01)
OPENING = 3
"""Requests for one file that are fewer than it takes to look into it and read it whole."""
HASTY = RetryPolicy(seconds=0.02, pause=0.01)
ONCE = RetryPolicy(seconds=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for seed, name in enumerate(NAMES):
        write(folder / f"{name}.tif", digital_numbers(SHAPE, seed), 10)
    write(folder / "scl.tif", scl_codes((SHAPE[0] // 2, SHAPE[1] // 2)), 20)
    (folder / "cut.tif").write_bytes((folder / "red.tif").read_bytes()[:200_000])
    return folder


def read(site, loader="stackstac", retry=PATIENT, **assets):
    """All pixels of an item on a server, in two strips and the SCL."""
    return pixels_at(site.url, loader, retry, **assets)


def pixels_at(url, loader, retry=PATIENT, **assets):
    item = item_of(url, {"blue": "blue.tif", "red": "red.tif", "scl": "scl.tif"} | assets)
    scene = open_scene(resolve(item, NAMES), loader=loader, retry=retry)
    return np.concatenate([scene.dn(0, 1024), scene.dn(1024, SHAPE[0] - 1024)], axis=1), scene.scl()[0]


@pytest.fixture(scope="module")
def client():
    """Another process that reads: rasterio can hold Python's lock during a request, which no server here can answer."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda site, loader: pool.submit(pixels_at, site.url, loader).result()


@pytest.fixture(scope="module")
def expected(folder):
    with serve(folder) as site:
        return read(site)


def some(rate, fault, seed):
    """A fault for a share of all requests."""
    chance = random.Random(seed)  # noqa: S311
    return lambda *_: fault if chance.random() < rate else None


def overloaded(seed):
    """503 to 20 % and 403 to 5 % of all requests."""
    chance = random.Random(seed)  # noqa: S311
    return lambda *_: random_status(chance.random())


def random_status(value):
    return 503 if value < 0.2 else 403 if value < 0.25 else None


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("seed", [1, 2, 4])
def test_an_overloaded_server_changes_no_bit(folder, expected, client, loader, seed):
    with serve(folder, overloaded(seed)) as site:
        dn, scl = client(site, loader)
        assert site.statuses[503] + site.statuses[403] > 0
    np.testing.assert_array_equal(dn, expected[0])
    np.testing.assert_array_equal(scl, expected[1])


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_bodies_cut_short_and_connections_lost_change_no_bit(folder, expected, client, loader, fault):
    with serve(folder, some(0.1, fault, 3)) as site:
        dn, scl = client(site, loader)
    np.testing.assert_array_equal(dn, expected[0])
    np.testing.assert_array_equal(scl, expected[1])


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", ["late", "slow", "long", "short"])
def test_latency_slow_bodies_and_wrong_lengths_change_no_bit(folder, expected, client, loader, fault):
    with serve(folder, some(0.1, fault, 5)) as site:
        dn, scl = client(site, loader)
    np.testing.assert_array_equal(dn, expected[0])
    np.testing.assert_array_equal(scl, expected[1])


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", ["late", "slow"])
def test_a_server_that_hangs_is_left_and_named(folder, loader, fault, monkeypatch):
    with serve(folder, lambda _, __, path: fault if path == "/red.tif" else None) as site:
        site.pause = 3.0
        monkeypatch.setattr(gdal, "REQUEST_SECONDS", 1)
        with pytest.raises(ReadError, match=r"'S2_test': asset 'red'.*fails") as caught:
            read(site, loader, ONCE)
    assert caught.value.retryable


@pytest.mark.parametrize("loader", LOADERS)
def test_etags_that_change_with_every_answer_change_no_bit(folder, expected, loader):
    with serve(folder) as site:

        def renamed(number, _, __):
            site.etag = f'"{number}"'

        site.fault = renamed
        dn, _ = read(site, loader)
    np.testing.assert_array_equal(dn, expected[0])


def test_reading_asks_for_nothing_but_the_files(folder):
    with serve(folder) as site:
        read(site)
        assert set(site.asked) == {"/blue.tif", "/red.tif", "/scl.tif"}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_that_is_not_there_is_a_missing_band(folder, loader):
    with serve(folder) as site, pytest.raises(BandNotFoundError, match=r"'S2_test': asset 'red'.*404") as caught:
        read(site, loader, HASTY, red="nowhere.tif")
    assert not caught.value.retryable


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("status", "said"), [(503, "503"), (500, "500"), (403, "needs credentials"), ("reset", "fails")]
)
def test_a_server_that_never_recovers_is_a_retryable_error_with_the_asset(folder, loader, status, said):
    def fault(_, __, path):
        return status if path == "/red.tif" else None

    with serve(folder, fault) as site, pytest.raises(ReadError, match=rf"'S2_test': asset 'red'.*{said}") as caught:
        read(site, loader, HASTY)
    assert caught.value.retryable


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", [503, "cut", "reset"])
def test_a_server_that_fails_halfway_gives_no_half_scene(folder, loader, fault):
    seen = Counter()

    def late(_, __, path):
        seen[path] += 1
        return fault if seen["/red.tif"] > OPENING and path == "/red.tif" else None

    with serve(folder, late) as site, pytest.raises(ReadError, match="asset 'red'"):
        read(site, loader, HASTY)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_file_cut_short_on_its_server_is_named(folder, loader):
    with serve(folder) as site, pytest.raises(ReadError, match=r"asset 'red'.*damaged"):
        read(site, loader, HASTY, red="cut.tif")


def test_a_host_that_takes_no_connections_is_left_soon_and_named(folder):
    with serve(folder) as site:
        gone = site.url
    item = item_of(gone, {"blue": "blue.tif", "red": "red.tif", "scl": "scl.tif?sig=SECRET"})
    start = time.monotonic()
    with pytest.raises(ReadError, match=r"'S2_test': asset.*cannot be reached.*Could not connect") as caught:
        open_scene(resolve(item, NAMES), retry=RetryPolicy(seconds=2))
    assert caught.value.retryable
    assert "SECRET" not in str(caught.value)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("loader", LOADERS)
def test_a_server_that_is_gone_half_way_is_left_and_named(folder, loader):
    with serve(folder) as site:
        item = item_of(site.url, {"blue": "blue.tif", "red": "red.tif", "scl": "scl.tif"})
        scene = open_scene(resolve(item, NAMES), loader=loader, retry=HASTY)
    with pytest.raises(ReadError, match=r"asset 'blue'.*fails"):
        scene.dn(0, SHAPE[0])


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", [503, "reset", 404])
def test_a_failure_is_not_remembered_once_the_server_is_well(folder, expected, loader, fault):
    with serve(folder, lambda *_: fault) as site:
        with pytest.raises((ReadError, BandNotFoundError)):
            read(site, loader, ONCE)
        site.fault = lambda *_: None
        dn, _ = read(site, loader, HASTY)
    np.testing.assert_array_equal(dn, expected[0])


@pytest.mark.parametrize("loader", LOADERS)
def test_secrets_of_an_href_are_in_no_error_and_no_log(folder, loader, caplog):
    caplog.set_level(logging.DEBUG)
    with (
        serve(folder, lambda _, __, path: 503 if path == "/red.tif" else None) as site,
        pytest.raises(ReadError) as caught,
    ):
        read(site, loader, HASTY, red="red.tif?sv=1&sig=SECRET")
    assert "SECRET" not in str(caught.value)
    ours = [record for record in caplog.records if record.name.startswith(("stac_cloudmask", "odc", "stackstac"))]
    assert "SECRET" not in "".join(record.getMessage() for record in ours)


def test_what_odc_logs_of_a_failing_href_is_redacted(folder, caplog):
    with serve(folder) as site:
        site.fault = lambda _, __, path: 503 if path == "/red.tif" and site.asked[path] > 3 else None
        with pytest.raises(ReadError):
            read(site, "odc", HASTY, red="red.tif?sig=SECRET")
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("odc")]
    assert any("red.tif?..." in message for message in logged)
    assert not any("SECRET" in message for message in logged)


def test_a_redirect_is_followed(folder, expected):
    with serve(folder) as site:
        site.fault = lambda _, __, path: f"{site.url}/red.tif" if path == "/moved.tif" else None
        dn, _ = read(site, red="moved.tif")
    np.testing.assert_array_equal(dn, expected[0])


def test_redirects_in_a_circle_are_left(folder):
    with serve(folder) as site:
        site.fault = lambda _, __, path: f"{site.url}/round.tif" if path == "/round.tif" else None
        with pytest.raises(ReadError, match=r"asset 'red'.*redirects"):
            read(site, red="round.tif", retry=HASTY)


@pytest.fixture
def token_endpoint(tmp_path, monkeypatch):
    """A token endpoint in place of Planetary Computer's."""
    (tmp_path / "token").write_text('{"msft:expiry": "2999-01-01T00:00:00Z", "token": "st=1&se=2&sig=SECRET"}')
    with serve(tmp_path) as site:
        stores = [replace(one, tokens=one.tokens and f"{site.url}/token") for one in providers.STORES]
        monkeypatch.setattr(providers, "STORES", stores)
        yield site


PC = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/60/V/B02.tif"


def test_planetary_computer_hrefs_are_signed_when_read_with_one_token_for_all(token_endpoint):
    assert sign(PC) == f"{PC}?st=1&se=2&sig=SECRET"
    assert sign(PC.replace("B02", "B03")).endswith("B03.tif?st=1&se=2&sig=SECRET")
    assert sign(f"{PC}?st=0&sig=OLD") == sign(PC)
    assert token_endpoint.asked == {"/token": 1}


def test_only_its_own_store_gets_a_token(token_endpoint):
    for href in ("https://evil.blob.core.windows.net/c/B02.tif", "https://example.com/B02.tif", "/data/B02.tif"):
        assert sign(href) == href
    assert not token_endpoint.asked


@pytest.mark.parametrize("content", ["", "[]", '{"token": "x"}', '{"token": "x", "msft:expiry": "soon"}'])
def test_an_answer_that_is_no_token_is_a_read_error(token_endpoint, content):
    (token_endpoint.root / "token").write_text(content)
    with pytest.raises(ReadError, match="no token of Planetary Computer"):
        sign(PC)


def test_a_token_that_is_about_to_expire_is_not_used_again(token_endpoint):
    soon = datetime.now(UTC) + timedelta(minutes=providers.TOKEN_MINUTES - 1)
    (token_endpoint.root / "token").write_text(json.dumps({"msft:expiry": soon.isoformat(), "token": "a"}))
    assert [sign(PC), sign(PC)] == [f"{PC}?a"] * 2
    assert token_endpoint.asked["/token"] == 2


def test_without_a_token_an_item_fails_in_time_with_the_name_of_its_provider(shared, token_endpoint):
    token_endpoint.fault = lambda *_: 503
    sources = resolve(genuine(shared, "mpc__sentinel-2-l2a__S2A"), NAMES)
    start = time.monotonic()
    with pytest.raises(ReadError, match=r"no token of Planetary Computer.*status 503.*is this machine offline"):
        open_scene(sources, retry=RetryPolicy(seconds=1, pause=0.01))
    assert time.monotonic() - start < 10


def test_sources_are_unsigned(shared, token_endpoint):
    sources = resolve(genuine(shared, "mpc__sentinel-2-l2a__S2A"), NAMES)
    assert not any("?" in source.href for source in sources.bands)
    assert not token_endpoint.asked


def test_stores_get_their_settings_and_only_unsigned_ones_may_answer_403_twice():
    plain = gdal_env("https://example.com/x.tif", retry=HASTY, fresh=False)
    assert "403" in plain["GDAL_HTTP_RETRY_CODES"]
    assert "CPL_VSIL_CURL_NON_CACHED" not in plain
    signed = gdal_env(PC, retry=HASTY, fresh=True)
    assert "403" not in signed["GDAL_HTTP_RETRY_CODES"]
    assert signed["CPL_VSIL_CURL_NON_CACHED"]
    assert gdal_env("s3://sentinel-s2-l2a/x.jp2", retry=HASTY, fresh=False)["AWS_REQUEST_PAYER"] == "requester"
    assert "AWS_REQUEST_PAYER" not in gdal_env("s3://other/x.jp2", retry=HASTY, fresh=False)
    assert "eodata" in gdal_env("s3://eodata/x.jp2", retry=HASTY, fresh=False)["AWS_S3_ENDPOINT"]


def test_file_name_extensions_that_the_environment_allows_hide_no_file(folder, expected, monkeypatch):
    monkeypatch.setenv("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".jp2")
    with serve(folder) as site:
        dn, _ = read(site)
    np.testing.assert_array_equal(dn, expected[0])


def hung_host():
    """A port that takes no connection and refuses none, as behind a firewall; and what keeps it so."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.settimeout(0)
        one.connect_ex(listening.getsockname())
    return listening.getsockname()[1], [listening, *waiting]


def test_a_host_that_answers_no_connection_is_left_in_time_and_named(monkeypatch):
    monkeypatch.setattr(gdal, "REACH_SECONDS", 1)
    port, sockets = hung_host()
    item = item_of(f"http://127.0.0.1:{port}", {name: f"{name}.tif" for name in (*NAMES, "scl")})
    try:
        for _ in range(2):  # also where GDAL remembers the first
            start = time.monotonic()
            with pytest.raises(ReadError, match=r"asset 'blue'.*cannot be reached.*is this machine offline"):
                open_scene(resolve(item, NAMES), retry=RetryPolicy(seconds=1, pause=0.1))
            assert time.monotonic() - start < 8
    finally:
        for one in sockets:
            one.close()


STORES = {
    "Earth Search": "https://sentinel-cogs.s3.us-west-2.amazonaws.com/x.tif",
    "CDSE": "https://download.dataspace.copernicus.eu/x.jp2",
    "Planetary Computer": PC,
}


@pytest.mark.parametrize("name", STORES)
def test_what_cannot_be_reached_is_named_after_its_provider(name):
    (text,) = (str(gdal.read_error(RasterioIOError("CURL error: no host"), STORES[name], "asset 'x'")),)
    assert f"{name} fails or cannot be reached" in text


@pytest.mark.parametrize(
    ("href", "needed"),
    [
        (STORES["CDSE"], "GDAL_HTTP_HEADERS='Authorization"),
        ("s3://eodata/x.jp2", "s3keysmanager"),
        ("s3://sentinel-s2-l2a/x.jp2", "AWS account, which pays"),
        ("s3://bucket/x.tif", "AWS_NO_SIGN_REQUEST"),
        ("https://example.com/x.tif", "credentials that are not there"),
    ],
)
@pytest.mark.parametrize("said", ["HTTP response code: 403", "InvalidCredentials: none found"])
def test_what_needs_credentials_says_which(href, needed, said):
    assert needed in str(gdal.read_error(RasterioIOError(said), href, "asset 'x'"))
