"""The lookup source that asks Neutron's public API, with credentials of Keystone (keystoneauth1).

A question costs one call for a network and two for a router, whose own ports say which networks it has. Up to NAMED
addresses are named in a call. When there are more, all ports of the scope are listed, page by page, since that is fewer
calls; unless it has more than WHOLE of them: then the addresses are named after all, in several calls.

Each call has lookup_timeout, not all of them together, so that a Neutron that is slow gets done with a long list: what
has come is kept while the rest is asked for. Pages are as long as it manages in that time. An answer that was made of
several calls is as old as the first of them.

The API is not believed to keep to what it was asked: a router's ports are looked at again here, everything else by the
resolver. No question leaves without networks to which it is confined: a router without networks has no guests.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import http
import math
import threading
import time
import urllib.parse
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

import requests
from keystoneauth1 import exceptions as ks
from keystoneauth1.identity.base import BaseIdentityPlugin
from oslo_config import cfg
from oslo_log import log as logging

from fastmeta.exceptions import (
    LookupFailedError,
    LookupMalformedError,
    LookupRefusedError,
    LookupUnavailableError,
)
from fastmeta.lookup import bounded_http, strict_json
from fastmeta.lookup.calls import Call, Threads
from fastmeta.lookup.keystone import NeutronOptions, make_session
from fastmeta.lookup.parts import Heard, ignored
from fastmeta.lookup.source import OnAnnouncing, OnChange
from fastmeta.models import (
    ROUTER_INTERFACE_OWNERS,
    ROUTER_OWNERS,
    Answer,
    Port,
    Question,
    Scope,
    ScopeKind,
    links_of,
    parse_uuid,
)
from fastmeta.repeats import Repeats, more

LOG = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 16
"""Calls at once."""
LIST_THREADS = 2
"""Calls at once for lists that nobody waits for (all_ports): they take none of the threads above."""
NAMED = 100
"""Addresses that are named in a call."""
MAX_NETWORKS = 60
"""Networks that are named in a call."""
MAX_QUERY = 7500
"""Bytes of a query: with the rest of the URL less than the 8,000 that servers and proxies take in their defaults
(Apache: 8,190 for the whole line, nginx: 8 KiB)."""
PAGE = 1000
"""Ports that are asked for in one answer; the server may give fewer (pagination_max_limit)."""
SMALLEST_PAGE = 125
"""When a page takes too long the next ones are half as long, down to this; and twice as long when it takes little."""
SLOW_PART, QUICK_PART = 0.5, 0.125
"""Of lookup_timeout: too long, and little."""
WHOLE = 2000
"""A scope with more ports is not listed."""
MAX_PORTS = 100_000
"""A list that does not end is no answer."""
MAX_LARGE = 10_000
"""Scopes of which it is remembered that they are too large to be listed, or that something was seen of them."""
LARGE_PERIOD = 600.0
"""Seconds for which a scope is not listed again."""
MAX_REST = 5.0
"""Seconds for which nothing is asked because the server says so (Retry-After), at most: guests wait 8 s by default."""
OWN_PART = 0.95
"""Of lookup_timeout: whoever knows what is being waited for says so before the resolver gives up."""
TOKEN_TIMEOUT = 15.0
"""Seconds that Keystone has for a token: longer than a question, or a slow Keystone would never be done."""
TOKEN_MARGIN = 125.0
"""Seconds before its end at which a token is no longer used; keystoneauth renews it 120 s before."""
FIELDS = ("id", "network_id", "device_id", "device_owner", "project_id", "mac_address", "fixed_ips")
"""What Port.from_api needs; all of a port is four times as much."""
REPEAT_PERIOD = 600.0
"""Seconds for which it is not said again that nothing is visible."""

Filters: TypeAlias = "list[tuple[str, str]]"
Page: TypeAlias = "tuple[list[object], bool]"
"""The elements of one answer, and whether these were the last ones."""
Steps: TypeAlias = "Generator[Filters, Page, T]"
"""A question, call by call: gives what to ask next, is sent what was answered, and returns what came of it."""


class _Job(Generic[T]):
    """A question that is being asked, one call after the other, by whatever thread. What has come stays when a call
    fails, which may be repeated then."""

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self.wanted = next(steps)
        self.heard = 0
        """Calls that were answered."""
        self.result: T | None = None

    @property
    def lists(self) -> bool:
        """Whether the next call is for a page of a list, whose length may be chosen."""
        return not any(name in ("fixed_ips", "mac_address", "device_id", "limit") for name, _ in self.wanted)

    def go_on(self, fetch: Callable[[Filters, Call], Page], call: Call) -> bool:
        """In a thread: one call. True when it was the last one."""
        # A thread that was cut off may need a moment to notice.
        if not self._lock.acquire(timeout=call.seconds_left()):
            raise call.too_late()
        try:
            page = fetch(self.wanted, call)
            self.heard += 1
            try:
                self.wanted = self._steps.send(page)
            except StopIteration as end:
                self.result = end.value
                return True
            return False
        finally:
            self._lock.release()


class RestSource:
    """The LookupSource of Neutron's API. What conf says holds until the process ends.

    lookup_timeout gives the seconds that a question may take.
    """

    def __init__(self, conf: cfg.ConfigOpts, lookup_timeout: Callable[[], float]) -> None:
        """Raises ConfigError, UnsafeFileError."""
        options = NeutronOptions(conf)
        self._session = make_session(conf, THREADS + LIST_THREADS)
        self._endpoint_override = options.url("neutron", "endpoint_override")
        self._wanted = {name: options[name] for name in ("service_type", "service_name", "region_name")}
        self._interfaces: list[str] = options["valid_interfaces"]
        self._lookup_timeout = lookup_timeout
        self._threads: Threads | None = None
        self._list_threads: Threads | None = None
        self._token: asyncio.Task[None] | None = None
        self._token_call = Call(0)
        self._token_until = -math.inf
        self._url = ""
        self._rest: tuple[float, str] = (-math.inf, "")
        self._page_size = PAGE
        self._large: dict[Scope, float] = {}
        self._looked_at: dict[Scope, float] = {}
        self._repeats = Repeats(REPEAT_PERIOD)

    async def start(self, on_change: OnChange, on_announcing: OnAnnouncing) -> None:
        """Neutron's API announces nothing. The first token is fetched now, so that no guest waits for it, and so that
        wrong credentials show at once; how that ends is not waited for."""
        self._threads = Threads("neutron", THREADS, "Neutron's API")
        self._list_threads = Threads("neutron-list", LIST_THREADS, "Neutron's API")
        self._renew().add_done_callback(_say_how_it_began)

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Heard = ignored) -> Answer:
        """As of LookupSource."""
        job = _Job(self._question(scope, questions))
        try:
            answer, is_anything_visible = await self._finish(job, self._started, heard)
        except asyncio.CancelledError:
            if job.heard and job.lists:
                # Whoever waited has given up: the next question has a better chance.
                _remember(self._large, scope)
            raise
        if not is_anything_visible:
            self._complain_of_blindness(scope)
        return answer

    async def all_ports(self, scope: Scope, most: int, heard: Heard = ignored) -> Answer | None:
        """As of LookupSource."""
        job = _Job(self._everything(scope, most))
        return await self._finish(job, _not_before_start(self._list_threads), heard)

    async def _finish(self, job: _Job[T], threads: Threads, heard: Heard) -> T:
        """Asks all that there is to ask."""
        while True:
            until, because = self._rest
            if time.monotonic() < until:
                raise LookupUnavailableError(because)
            call = Call(self._lookup_timeout() * OWN_PART)
            if time.monotonic() >= self._token_until:
                await self._wait_for_token(call)
            try:
                if await threads.run(functools.partial(job.go_on, self._fetch), call):
                    return job.result  # type: ignore[return-value]
            except LookupUnavailableError:
                if not (call.is_over and job.lists and self._shorten_pages() and job.heard):
                    raise
                # What has come so far is kept: the same page again, but shorter.
            heard()

    def _fetch(self, wanted: Filters, call: Call) -> Page:
        """In a thread: one call, with pages as long as the server manages."""
        if any(name == "limit" for name, _ in wanted):
            return self._page(wanted, call)
        size, began = self._page_size, time.monotonic()
        page = self._page([*wanted, ("limit", str(size))], call)
        part = (time.monotonic() - began) / (self._lookup_timeout() * OWN_PART)
        if len(page[0]) >= size and size == self._page_size:
            if part > SLOW_PART:
                self._shorten_pages()
            elif part < QUICK_PART:
                self._page_size = min(size * 2, PAGE)
        return page

    def _shorten_pages(self) -> bool:
        """False when they are as short as they may be."""
        size, self._page_size = self._page_size, max(self._page_size // 2, SMALLEST_PAGE)
        return self._page_size < size

    async def stop(self) -> None:
        """Whatever is under way is cut off."""
        await asyncio.gather(
            *(threads.stop() for threads in (self._threads, self._list_threads) if threads is not None)
        )
        if self._token is not None:
            self._token.cancel()
            await asyncio.gather(self._token, return_exceptions=True)
        self._session.session.close()

    @property
    def _started(self) -> Threads:
        return _not_before_start(self._threads)

    # The token. One call at a time fetches it, whatever the number of questions; none of these holds a thread while
    # Keystone is waited for.

    def _renew(self) -> asyncio.Task[None]:
        if self._token is None or self._token.done():
            self._token_call = Call(TOKEN_TIMEOUT)
            self._token = asyncio.get_running_loop().create_task(
                self._started.run(self._fetch_token, self._token_call), name="Keystone token"
            )
            self._token.add_done_callback(_retrieve)
        return self._token

    async def _wait_for_token(self, call: Call) -> None:
        token = self._renew()
        done, _ = await asyncio.wait([token], timeout=call.seconds_left())
        if not done:
            raise self._token_call.too_late()
        if token.cancelled():
            raise LookupUnavailableError("fastmeta is ending")
        token.result()

    def _fetch_token(self, call: Call) -> None:
        """In a thread: a token, and where Neutron is."""
        with self._speaking(call):
            self._session.get_token()
            auth = self._session.auth
            expires: datetime.datetime | None = None
            if isinstance(auth, BaseIdentityPlugin):
                expires = auth.get_access(self._session).expires
            endpoint = self._endpoint_override
            if not endpoint:
                with contextlib.suppress(ks.CatalogException):
                    endpoint = self._session.get_endpoint(
                        interface=self._interfaces, skip_discovery=True, **self._wanted
                    )
            if not endpoint:
                raise LookupRefusedError(self._why_no_endpoint())
        self._url = _ports_url(endpoint)
        life = math.inf
        if expires is not None:
            life = (expires - datetime.datetime.now(datetime.timezone.utc)).total_seconds() - TOKEN_MARGIN
        self._token_until = time.monotonic() + life

    def _why_no_endpoint(self) -> str:
        kind = self._wanted["service_type"]
        auth = self._session.auth
        there: set[str] = set()
        if isinstance(auth, BaseIdentityPlugin):
            catalog = auth.get_access(self._session).service_catalog
            for endpoints in catalog.get_endpoints_data(service_type=kind).values():
                there |= {f"{endpoint.interface} in region {endpoint.region_name}" for endpoint in endpoints}
        wanted = f"{' or '.join(self._interfaces)}"
        if self._wanted["region_name"]:
            wanted += f" in region {self._wanted['region_name']}"
        found = ascii("; ".join(sorted(there)))[1:-1][:400] or "none at all"
        return (
            f"Keystone's catalogue has no endpoint of service type {kind}: wanted {wanted}, there is {found}; see "
            "region_name, valid_interfaces, service_type and endpoint_override in [neutron]"
        )

    @contextlib.contextmanager
    def _speaking(self, call: Call) -> Iterator[None]:
        """In a thread: what keystoneauth raises becomes ours, without its texts, which hold what was asked."""
        with bounded_http.calling(call, self._name_of):
            try:
                yield
            except LookupFailedError:
                raise
            except ks.HttpError as error:
                response = getattr(error, "response", None)
                raise self._refusal_of_keystone(error.http_status, response, call.asking) from None
            except ks.DiscoveryFailure:
                raise LookupRefusedError(
                    f"there is no Keystone there: {call.asking}; see auth_url in [neutron]"
                ) from None
            except ks.ClientException as error:
                raise LookupRefusedError(
                    f"{call.asking}: authentication fails ({type(error).__name__}); see auth_type, auth_url and the "
                    "credentials in [neutron]"
                ) from None
            except Exception as error:
                # What Keystone answers is not what keystoneauth expects, and it does not look.
                LOG.debug("%s: keystoneauth fails", call.asking, exc_info=True)
                raise LookupMalformedError(
                    f"{call.asking} answers what cannot be understood ({type(error).__name__}); see auth_url in "
                    "[neutron]"
                ) from None

    def _refusal_of_keystone(
        self, status: int, response: requests.Response | None, who: str
    ) -> LookupFailedError:
        if response is not None:
            self._rest_as_told(response, f"{who} answers {_shown_status(status)}")
        if status == http.HTTPStatus.UNAUTHORIZED:
            return LookupRefusedError(
                f"{who} does not take our credentials (401): user, password, project or one of their domains in "
                "[neutron] is wrong, or the user is disabled or has no role in the project"
            )
        if status == http.HTTPStatus.NOT_FOUND:
            return LookupRefusedError(f"there is no Keystone there: {who} (404); see auth_url in [neutron]")
        if status >= 500 or status == http.HTTPStatus.TOO_MANY_REQUESTS:
            return LookupUnavailableError(f"{who} answers {_shown_status(status)}")
        return LookupRefusedError(
            f"{who} does not take our question for a token ({_shown_status(status)}); see auth_type, auth_url and the "
            "credentials in [neutron]"
        )

    def _name_of(self, url: str) -> str:
        if self._url and url.startswith(self._url):
            return self._neutron
        return f"Keystone at {bounded_http.shown_url(url)}"

    @property
    def _neutron(self) -> str:
        return f"Neutron at {bounded_http.shown_url(self._url.removesuffix('/v2.0/ports'))}"

    # Ports: what to ask, one call after the other, and what came of it. All of this runs in a thread.

    def _question(self, scope: Scope, questions: Sequence[Question]) -> Steps[tuple[Answer, bool]]:
        """The answer, and whether there is any sign that we may see the scope's ports."""
        networks, links, own = yield from self._networks(scope)
        if not networks:
            return Answer(frozenset(), (), links=links), own
        items = yield from self._items(scope, networks, list(dict.fromkeys(questions)))
        visible = bool(items or links) or scope in self._looked_at
        if not visible:
            visible = bool((yield [("network_id", scope.uuid), ("fields", "id"), ("limit", "1")])[0])
        _remember(self._looked_at, scope)
        return Answer.from_api(networks, items, links), visible

    def _everything(self, scope: Scope, most: int) -> Steps[Answer | None]:
        """All ports of a scope; None when they are more than so many."""
        networks, links, _ = yield from self._networks(scope)
        items = yield from self._whole(_confined(networks), most)
        return None if items is None else Answer.from_api(networks, items, links)

    def _networks(self, scope: Scope) -> Steps[tuple[list[str], Mapping[str, frozenset[str]], bool]]:
        """Those of the scope, a router's links, and whether a router's own ports can be seen."""
        if scope.kind is ScopeKind.NETWORK:
            return [scope.uuid], {}, True
        own = yield from self._own_ports(scope.uuid)
        networks = sorted({port.network_id for port in own if port.device_owner in ROUTER_INTERFACE_OWNERS})
        return networks, links_of(own), bool(own)

    def _own_ports(self, router: str) -> Steps[list[Port]]:
        """The router's: they say which networks it has, so one that cannot be read leaves that open."""
        filters = [("device_id", router), *(("device_owner", owner) for owner in sorted(ROUTER_OWNERS))]
        items = yield from self._list(filters, MAX_PORTS)
        try:
            ports = [Port.from_api(item) for item in items or ()]
        except LookupMalformedError as error:
            raise LookupMalformedError(
                f"{self._neutron} answers, of a router's own ports, what cannot be read: {error}"
            ) from error
        return [
            port for port in ports if port.device_id.lower() == router and port.device_owner in ROUTER_OWNERS
        ]

    def _items(
        self, scope: Scope, networks: Sequence[str], questions: Sequence[Question]
    ) -> Steps[list[object]]:
        """The elements of Neutron's answers."""
        confined = _confined(networks)
        if len(questions) > NAMED and time.monotonic() >= self._large.get(scope, -math.inf):
            items = yield from self._whole(confined, WHOLE)
            if items is not None:
                return items
            _remember(self._large, scope)
        items = []
        for within in confined:
            for named in _batches(questions, MAX_QUERY - _size(within)):
                items += (yield from self._list(within + named, MAX_PORTS)) or []
        return items

    def _whole(self, confined: Sequence[Filters], most: int) -> Steps[list[object] | None]:
        """All ports of these networks; None when they are more than so many."""
        items: list[object] = []
        for within in confined:
            listed = yield from self._list(within, most - len(items))
            if listed is None:
                return None
            items += listed
        return items

    def _list(self, filters: Filters, most: int) -> Steps[list[object] | None]:
        """All pages of a list; None when it has more than so many elements."""
        items: list[object] = []
        marker: str | None = None
        markers: set[str] = set()
        asked = [*filters, *(("fields", field) for field in FIELDS)]
        while True:
            page, is_last = yield [*asked, *([("marker", marker)] if marker else [])]
            items += page
            if len(items) > most:
                if most == MAX_PORTS:
                    raise LookupMalformedError(f"{self._neutron} lists ports without end")
                return None
            if is_last:
                return items
            # The marker is the id of the last one that we have. The link to the next page says the same, but with a
            # scheme and host that, behind a proxy, need not be right.
            last = page[-1] if page else None
            marker = parse_uuid(last.get("id")) if isinstance(last, Mapping) else None
            if marker is None or marker in markers:
                raise LookupMalformedError(f"{self._neutron} says that there is a next page, and not where")
            markers.add(marker)

    def _page(self, filters: Filters, call: Call) -> Page:
        """One call: the elements, and whether these were the last ones."""
        if not any(name in ("network_id", "device_id") and value for name, value in filters):
            raise RuntimeError("a question for ports must be confined to networks, or to a router")
        url = self._url
        with self._speaking(call):
            response = self._session.get(
                f"{url}?{_encoded(filters)}",
                headers={"Accept": "application/json"},
                redirect=False,
                raise_exc=False,
                log=False,
            )
        if response.status_code != http.HTTPStatus.OK:
            if response.status_code == http.HTTPStatus.NOT_FOUND and "marker" in dict(filters):
                # So it says that the last port of the page before is gone.
                raise LookupUnavailableError(f"{self._neutron} has changed its list while it was being read")
            raise self._refusal_of_neutron(response)
        try:
            document = strict_json.parse(response.content)
        except ValueError:
            document = None
        items = document.get("ports") if isinstance(document, dict) else None
        if not isinstance(items, list):
            kind = ascii(response.headers.get("Content-Type", "of no type").split(";")[0])[1:-1][:60]
            raise LookupMalformedError(
                f"what {self._neutron} answers ({kind}) is no list of ports; is something else there? See "
                "endpoint_override in [neutron], and the catalogue"
            )
        links = document.get("ports_links", [])
        if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
            raise LookupMalformedError(f"{self._neutron} answers links to other pages that cannot be read")
        wanted = int(dict(filters)["limit"])
        return items, not (any(link.get("rel") == "next" for link in links) or 1 < wanted <= len(items))

    def _refusal_of_neutron(self, response: requests.Response) -> LookupFailedError:
        who, status = self._neutron, response.status_code
        self._rest_as_told(response, f"{who} answers {_shown_status(status)}")
        if status == http.HTTPStatus.UNAUTHORIZED:
            return LookupRefusedError(
                f"{who} does not take a token that Keystone has given us only now (401): does [keystone_authtoken] in "
                "neutron.conf name the same Keystone as auth_url in [neutron]?"
            )
        if status == http.HTTPStatus.FORBIDDEN:
            return LookupRefusedError(
                f"{who} forbids us to list ports (403): the credentials in [neutron] need the role admin or service"
            )
        if status == http.HTTPStatus.NOT_FOUND:
            return LookupRefusedError(
                f"{who} has no list of ports (404); see endpoint_override in [neutron], and the catalogue"
            )
        if status >= 500 or status == http.HTTPStatus.TOO_MANY_REQUESTS:
            return LookupUnavailableError(f"{who} answers {_shown_status(status)}")
        return LookupRefusedError(
            f"{who} does not take our question for ports ({_shown_status(status)}); see endpoint_override in "
            "[neutron], and the catalogue"
        )

    def _rest_as_told(self, response: requests.Response, because: str) -> None:
        if response.status_code in (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.SERVICE_UNAVAILABLE):
            text = response.headers.get("Retry-After", "")
            if text.isascii() and text.isdigit():
                self._rest = (time.monotonic() + min(float(text[:9]), MAX_REST), because)

    def _complain_of_blindness(self, scope: Scope) -> None:
        held_back = self._repeats.admit("blind")
        if held_back is not None:
            LOG.warning(
                "lookup for %s: %s shows us none of its ports, not even that of its DHCP server or router: the "
                "credentials in [neutron] probably lack the role admin or service, or it has neither; its guests "
                "get 404%s",
                scope,
                self._neutron,
                more(held_back),
            )


def _not_before_start(threads: Threads | None) -> Threads:
    if threads is None:
        raise RuntimeError("start() comes first")
    return threads


def _say_how_it_began(token: asyncio.Task[None]) -> None:
    if not token.cancelled() and (error := token.exception()) is not None:
        LOG.error("Neutron's API cannot be asked yet, guests wait: %s", error)


def _retrieve(token: asyncio.Task[None]) -> None:
    """Nobody may have waited for it."""
    if not token.cancelled():
        token.exception()


def _remember(scopes: dict[Scope, float], scope: Scope) -> None:
    """For LARGE_PERIOD, where that counts."""
    if len(scopes) >= MAX_LARGE:
        scopes.clear()
    scopes[scope] = time.monotonic() + LARGE_PERIOD


def _confined(networks: Sequence[str]) -> list[Filters]:
    """Filters, each for some of these networks."""
    return [
        [("network_id", network) for network in networks[first : first + MAX_NETWORKS]]
        for first in range(0, len(networks), MAX_NETWORKS)
    ]


def _ports_url(endpoint: str) -> str:
    """Catalogues have Neutron's endpoint with the version or, as they should, without."""
    stripped = endpoint.rstrip("/")
    return f"{stripped}/ports" if stripped.endswith("/v2.0") else f"{stripped}/v2.0/ports"


def _encoded(filters: Filters) -> str:
    # "=" and ":" mean nothing within a value (RFC 3986 section 3.4), and are in each: fixed_ips=ip_address=….
    return urllib.parse.urlencode(filters, safe="=:")


def _size(filters: Filters) -> int:
    return len(_encoded(filters)) + 1


_FIXED_SIZE = _size([*(("fields", field) for field in FIELDS), ("limit", str(PAGE)), ("marker", "x" * 36)])


def _batches(questions: Sequence[Question], room: int) -> Iterator[Filters]:
    """Up to NAMED addresses each, in so many bytes. Addresses and MACs apart: filters of two kinds must both fit."""
    addresses = [
        ("fixed_ips", f"ip_address={question.address}") for question in questions if not question.mac
    ]
    macs = [("mac_address", question.mac) for question in questions if question.mac]
    for named in (addresses, macs):
        batch: Filters = []
        left = room - _FIXED_SIZE
        for one in named:
            size = _size([one])
            if batch and (len(batch) == NAMED or size > left):
                yield batch
                batch = []
                left = room - _FIXED_SIZE
            batch.append(one)
            left -= size
        if batch:
            yield batch


def _shown_status(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
