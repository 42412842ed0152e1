"""The options: Neutron's own names where the meaning is the same, ours in ``[fastmeta]``."""

from __future__ import annotations

from oslo_config import cfg

from fastmeta.conf.discovery import DISCOVER_OPT
from fastmeta.conf.types import Seconds, Whole

FASTMETA_GROUP = cfg.OptGroup("fastmeta", title="fastmeta")
RATE_LIMIT_GROUP = cfg.OptGroup("metadata_rate_limiting", title="Rate limits, as Neutron names them")

NEUTRON_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "state_path",
        default="/var/lib/neutron",
        help="Where Neutron's agents keep their files. fastmeta keeps none there itself; it knows the "
        "option so that other options may use $state_path.",
    ),
    cfg.HostAddressOpt(
        "nova_metadata_host",
        default="127.0.0.1",
        deprecated_opts=[cfg.DeprecatedOpt("nova_metadata_ip", group="DEFAULT")],
        help="Name or IP address of Nova's metadata API. A name is resolved at start, again every minute, and "
        "when the API is away; all of its addresses are used at once, each as a server of its own. As long as a "
        "name cannot be resolved every guest waits, and then gets 503. For several Novas: [fastmeta] upstreams.",
    ),
    cfg.Opt(
        "nova_metadata_port",
        type=Whole(1, 65535, "TCP port"),
        default=8775,
        help="TCP port of Nova's metadata API.",
    ),
    cfg.StrOpt(
        "nova_metadata_protocol",
        default="http",
        choices=[("http", "without encryption"), ("https", "TLS 1.2 or later")],
        help="How Nova's metadata API is spoken to.",
    ),
    cfg.StrOpt(
        "auth_ca_cert",
        metavar="FILE",
        help="For https: the certificates (PEM) of the authorities that may have issued that of Nova's metadata "
        "API. Not set: those that OpenSSL takes for the system's (Neutron's agent uses the ones of its "
        "requests library). Like all files of certificates it is refused when group or others may write it, and "
        "read again at a reload.",
    ),
    cfg.BoolOpt(
        "nova_metadata_insecure",
        default=False,
        help="For https: takes any certificate; auth_ca_cert has no effect then. Whoever is on the way can read "
        "and change what guests get. Taken with a warning.",
    ),
    cfg.StrOpt(
        "nova_client_cert",
        default="",
        metavar="FILE",
        help="For https: our own certificate (PEM, with those between it and its authority behind it), for a "
        "metadata API that asks for one. Has an effect only when nova_client_priv_key is given, too.",
    ),
    cfg.StrOpt(
        "nova_client_priv_key",
        default="",
        metavar="FILE",
        help="For https: the private key of nova_client_cert (PEM, not encrypted).",
    ),
    cfg.StrOpt(
        "metadata_proxy_shared_secret",
        default="",
        secret=True,
        help="Signs instance ids, so that Nova knows who vouches for them. It must equal "
        "metadata_proxy_shared_secret in section [neutron] of nova.conf: with another one Nova answers "
        "every guest with 403. Empty is taken, with a warning: then everybody who reaches Nova's metadata "
        "API can ask in any instance's name.",
    ),
)

FASTMETA_OPTS: tuple[cfg.Opt, ...] = (
    cfg.MultiStrOpt(
        "listen",
        default=[],
        metavar="SCOPE@[NAMESPACE/]ADDRESS:PORT",
        help="Where guests are listened to, and to which network or router they belong then; may be given "
        "many times. network:<uuid>@<address>:<tcp port> or router:<uuid>@<address>:<tcp port>, with a "
        "namespace before the address where it is not our own: "
        "network:<uuid>@qdhcp-<uuid>/169.254.169.254:80. IPv6 in brackets; [::] takes IPv4 too; a "
        "link-local address needs its interface: [fe80::a9fe:a9fe%tap0]:80. A namespace that is not there "
        "yet is waited for. Who gets to an address that is given here is believed to be in that network: "
        "make sure that nobody else can.",
    ),
    DISCOVER_OPT,
    cfg.ListOpt(
        "upstreams",
        default=[],
        metavar="URL,...",
        help="Several places of Nova's metadata API, up to 16: http://<host>[:<tcp port>], https://<host>[:<tcp "
        "port>] (80 and 443 when it is left out, IPv6 in brackets) or unix:/<path>. A request goes to the one that "
        "has the fewest in progress; one that does not answer rests, and the others serve. Not set: the one that "
        "nova_metadata_host, nova_metadata_port and nova_metadata_protocol name, which have no effect otherwise.",
    ),
    cfg.StrOpt(
        "next_shared_secret",
        default="",
        secret=True,
        help="For a change of the secret without an outage: the one that will be metadata_proxy_shared_secret. A "
        "GET or HEAD that Nova answers with 403 is sent once more, signed with it; if Nova takes that, it gets "
        "this signature from then on. Empty: there is none.",
    ),
    cfg.StrOpt(
        "lookup",
        default="auto",
        choices=[
            ("auto", "the first of the following for which there is what it needs"),
            ("rpc", "Neutron's servers over the message bus, as its own agents do; needs transport_url"),
            ("rest", "Neutron's API; needs credentials in [neutron]"),
            ("static", "ports_file says which port has which address; for labs and tests"),
        ],
        help="Where it is looked up which port, and so which instance, has an address. rpc: Neutron's servers over the "
        "message bus, as its own agents do; needs transport_url, and the packages of fastmeta[rpc]. rest: Neutron's "
        "API; needs credentials in [neutron]. static: ports_file, for labs and tests. auto: the first of these for "
        "which transport_url, credentials or ports_file is given.",
    ),
    cfg.StrOpt(
        "ports_file",
        metavar="FILE",
        help="For lookup = static: JSON in the shape in which Neutron's API answers (openstack port list, "
        "GET /v2.0/ports), ports of router interfaces included. It is read again when it changes; a broken "
        "one leaves the old content in force. It decides who an instance is, so it is refused when group "
        "or others may write it, or when it belongs to neither root nor the user that fastmeta runs as.",
    ),
    cfg.StrOpt(
        "netns_dir",
        default="/run/netns",
        metavar="DIR",
        help="The folder in which namespaces have their names; the one that ip netns uses.",
    ),
    cfg.StrOpt(
        "control_dir",
        default="/run/fastmeta",
        metavar="DIR",
        help="The folder of the sockets by which fastmeta status and haproxy's stand-in find the running agent. It is "
        "made when it is missing (mode 0700), and must belong to the user that fastmeta runs as. An empty value says "
        "that there are to be none.",
    ),
    cfg.BoolOpt(
        "stand_in",
        default=False,
        help="Take the sockets that fastmeta-haproxy hands over, which Neutron's L3, DHCP and OVN agents start in "
        "haproxy's place, and serve the networks and routers that it names. Needs control_dir, which must stay when "
        "fastmeta ends (systemd: RuntimeDirectoryPreserve=yes), and CAP_NET_ADMIN.",
    ),
    cfg.BoolOpt(
        "relay",
        default=True,
        help="Whether metadata_proxy_socket may be opened at all. false: not, whatever the files of Neutron's agents "
        "say of it, as beside OVN's agents, which listen there themselves.",
    ),
    cfg.Opt(
        "identity_ttl",
        type=Seconds(0.1, 3600),
        default=10.0,
        help="Seconds for which an answer about an address is believed, counted from the question. For so "
        "long an address that has gone to another instance may still get the former one's metadata. Must "
        "be longer than lookup_timeout.",
    ),
    cfg.Opt(
        "identity_ttl_with_events",
        type=Seconds(0.1, 3600),
        default=60.0,
        help="The same where every change is announced to us (lookup = rpc, with a bus on which our own messages to "
        "ourselves come back in time): a change ends what it concerns at once, so that answers may be believed "
        "longer. Must be longer than lookup_timeout, too.",
    ),
    cfg.Opt(
        "negative_ttl",
        type=Seconds(0, 60),
        default=2.0,
        help="Seconds for which it is believed that an address belongs to nobody; its guest gets 404 "
        "meanwhile. Longer spares questions, and keeps a guest waiting whose port was made only now.",
    ),
    cfg.Opt(
        "lookup_timeout",
        type=Seconds(0.1, 60),
        default=3.0,
        help="Seconds that one question may take, and each further call of one that needs several calls. It is asked "
        "again then, for as long as guests wait (park_timeout).",
    ),
    cfg.BoolOpt(
        "prefetch",
        default=False,
        help="Ask for all ports of a network or router as soon as it can be reached here, before a guest asks, up to "
        "2,000 of them: guests that boot right after need not wait for an answer about them. What is not used within "
        "identity_ttl ends, so it helps where networks come together with their guests; where they stay and guests "
        "come later, it only costs calls. After a reload it holds for networks and routers that can be reached from "
        "then on.",
    ),
    cfg.Opt(
        "park_timeout",
        type=Seconds(0.1, 300),
        default=8.0,
        help="Seconds that a request waits for an answer to who it is, or for Nova's metadata API to come "
        "back, before it gets 503. Keep it under the 10 s that cloud-init waits: before version 25.1 "
        "cloud-init repeats a request that got no answer, but never one that got an error.",
    ),
    cfg.Opt(
        "upstream_timeout",
        type=Seconds(1, 600),
        default=60.0,
        help="Seconds that Nova's metadata API has for an answer; the guest gets 504 then.",
    ),
    cfg.Opt(
        "head_timeout",
        type=Seconds(0.1, 300),
        default=10.0,
        help="Seconds that a guest has to send the head of a request it has begun (then 408).",
    ),
    cfg.Opt(
        "body_timeout",
        type=Seconds(0.1, 300),
        default=30.0,
        help="Seconds that a guest has to send the body of a request (then 408).",
    ),
    cfg.Opt(
        "write_timeout",
        type=Seconds(0.1, 600),
        default=30.0,
        help="Seconds for which a guest may take nothing of its answer; its connection is closed then.",
    ),
    cfg.Opt(
        "answer_timeout",
        type=Seconds(1, 86400),
        default=600.0,
        help="Seconds that an answer may take from its first byte to its last, however steadily the guest "
        "takes it; its connection is closed then.",
    ),
    cfg.Opt(
        "connect_timeout",
        type=Seconds(0.1, 60),
        default=3.0,
        help="Seconds that a connection to Nova's metadata API may take, TLS included; another server is tried "
        "then.",
    ),
    cfg.Opt(
        "second_try_after",
        type=Seconds(0, 600),
        default=3.0,
        help="Seconds after which a GET or HEAD that Nova has not begun to answer is sent to another server as "
        "well; the first answer counts. At most a tenth of the requests in progress are sent twice at a time. "
        "0: never. Without a second server it has no effect.",
    ),
    cfg.Opt(
        "keepalive_timeout",
        type=Seconds(0.1, 3600),
        default=30.0,
        help="Seconds for which a guest's connection stays open without a request.",
    ),
    cfg.Opt(
        "drain_timeout",
        type=Seconds(0, 600),
        default=10.0,
        help="Seconds that requests in progress have to end when fastmeta is stopped; what is left then is "
        "cut off.",
    ),
    cfg.Opt(
        "loops",
        type=Whole(1, 64, "number"),
        default=1,
        help="Threads that serve guests. Each network or router is served by one of them, a new one by that "
        "which has the fewest. More than one only when one processor is not enough. max_connections, "
        "max_parked, max_gathered_bodies and max_upstream_connections are divided equally over them, at "
        "least one each.",
    ),
    cfg.Opt(
        "max_connections",
        type=Whole(1, 1_000_000, "number"),
        default=16384,
        help="Connections of guests at once. A further one takes the place of the one that has had no request in "
        "progress for longest; when all have one it gets 503. Fewer when the limit of descriptors (LimitNOFILE) "
        "does not allow so many.",
    ),
    cfg.Opt(
        "max_connections_per_scope",
        type=Whole(1, 1_000_000, "number"),
        default=4096,
        help="The same for the guests of one network or router.",
    ),
    cfg.Opt(
        "max_connections_per_address",
        type=Whole(1, 1_000_000, "number"),
        default=128,
        help="The same for one address of a network or router.",
    ),
    cfg.Opt(
        "max_parked",
        type=Whole(1, 1_000_000, "number"),
        default=8192,
        help="Requests that may wait at once: for an answer to who they are, for Nova to come back, or for a "
        "place there; further ones get 503 at once.",
    ),
    cfg.Opt(
        "max_parked_per_scope",
        type=Whole(1, 1_000_000, "number"),
        default=2048,
        help="The same for one network or router.",
    ),
    cfg.Opt(
        "max_parked_per_address",
        type=Whole(1, 1_000_000, "number"),
        default=64,
        help="The same for one address of a network or router.",
    ),
    cfg.Opt(
        "max_gathered_bodies",
        type=Whole(1, 65536, "number"),
        default=512,
        help="Request bodies of up to 64 KiB that are gathered at once, before they go to Nova in one piece; each "
        "takes 64 KiB of memory. A quarter of them may be of one network or router, one in 32 of one address; "
        "further ones get 503 at once.",
    ),
    cfg.Opt(
        "max_head",
        type=Whole(256, 14_000, "number of bytes"),
        default=8192,
        help="Bytes of a request's head: a longer one gets 431, or 414 when its first line alone is longer.",
    ),
    cfg.Opt(
        "max_headers",
        type=Whole(1, 100, "number"),
        default=100,
        help="Headers of a request: one with more gets 431.",
    ),
    cfg.Opt(
        "max_target",
        type=Whole(16, 14_000, "number of bytes"),
        default=4096,
        help="Bytes of a request's target as it is sent (the path with its query; of an absolute one all of it): one "
        "with a longer one gets 414.",
    ),
    cfg.Opt(
        "max_body",
        type=Whole(0, 1 << 30, "number of bytes"),
        default=1 << 20,
        help="Bytes of a request's body: one with a longer one gets 413, and Nova sees nothing of it. A chunked "
        "body may have 65536 bytes at most, whatever this says.",
    ),
    cfg.Opt(
        "max_upstream_connections",
        type=Whole(1, 65536, "number"),
        default=256,
        help="Connections to each address of each upstream at once, and so requests in progress there. More than "
        "it has workers only fills its queue. Networks and routers, and the addresses in each, get them in turns; "
        "one alone may have three quarters of them, one address a fifth.",
    ),
    cfg.Opt(
        "warm_connections",
        type=Whole(0, 64, "number"),
        default=2,
        help="Connections that each loop opens to each address of each upstream when it becomes known, before there "
        "is a request.",
    ),
    cfg.BoolOpt(
        "access_log",
        default=False,
        help="Logs a line (INFO) for each request: network or router, address, instance, method, target, "
        "status, times. Costs more than serving the request does; for labs and for looking into a problem.",
    ),
)

RATE_LIMIT_OPTS: tuple[cfg.Opt, ...] = (
    cfg.BoolOpt(
        "rate_limit_enabled",
        default=False,
        help="Whether the requests of each address of a network or router are limited, by two sliding windows. A "
        "request above either limit gets 429, with Retry-After, and counts too. Mind that a boot of cloud-init "
        "makes about 29 requests at once, and that versions before 25.1 give up at the first 429.",
    ),
    cfg.ListOpt(
        "ip_versions",
        item_type=Whole(4, 6, "version of IP"),
        default=[4],
        help="Which requests are limited: 4, 6, or 4,6 (with which Neutron limits none).",
    ),
    cfg.Opt(
        "base_window_duration",
        type=Whole(1, 86400, "number of seconds"),
        default=10,
        help="Seconds of the base window.",
    ),
    cfg.Opt(
        "base_query_rate_limit",
        type=Whole(1, 1_000_000, "number"),
        default=10,
        help="Requests of an address in a base window.",
    ),
    cfg.Opt(
        "burst_window_duration",
        type=Whole(1, 86400, "number of seconds"),
        default=10,
        help="Seconds of the burst window.",
    ),
    cfg.Opt(
        "burst_query_rate_limit",
        type=Whole(1, 1_000_000, "number"),
        default=10,
        help="Requests of an address in a burst window.",
    ),
)
