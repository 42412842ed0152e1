/* Reads the haproxy configurations that Neutron's agents write for metadata proxies, of all releases with haproxy.
 *
 * Strict: whatever is not known, or is there twice, makes it READ_UNKNOWN, since what a line means that we do not know could
 * matter. docs/stand-in.md has the list of lines. */

#include "stand_in.h"
#include "words.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum section { SECTION_NONE, SECTION_GLOBAL, SECTION_DEFAULTS, SECTION_BASE, SECTION_BURST, SECTION_LISTEN };

struct reader {
    struct proxy *proxy;
    enum section section;
    unsigned sections; /* that have been, a bit for each */
    struct words words;
    bool daemon;
    bool server;
    bool tracked[2];
    bool denied[2];
    uint32_t tables[2]; /* of base and burst: the version of IP */
    char tag[UUID_LENGTH + 1];
};

#define TAG "haproxy-metadata-proxy-"

static enum kind header_kind(const char *name)
{
    if (strcmp(name, "X-Neutron-Network-ID") == 0 || strcmp(name, "X-OVN-Network-ID") == 0)
        return KIND_NETWORK;
    return strcmp(name, "X-Neutron-Router-ID") == 0 ? KIND_ROUTER : KIND_NONE;
}

static bool once(bool *was)
{
    bool fresh = !*was;
    *was = true;
    return fresh;
}

static bool keep_once(char *to, size_t size, const char *text)
{
    size_t length = strlen(text);
    if (to[0] != 0 || length >= size)
        return false;
    memcpy(to, text, length + 1);
    return true;
}

static bool global_line(struct reader *reader)
{
    const struct words *words = &reader->words;
    if (are(words, "log", "/dev/log", 4) || are(words, "user", NULL, 2) || are(words, "group", NULL, 2))
        return true;
    if (are(words, "maxconn", NULL, 2) || are(words, "nbthread", NULL, 2))
        return number(words->at[1], "") > 0;
    if (are(words, "daemon", NULL, 1))
        return once(&reader->daemon);
    if (are(words, "pidfile", NULL, 2))
        return words->at[1][0] == '/' && keep_once(reader->proxy->pid_file, sizeof(reader->proxy->pid_file), words->at[1]);
    if (are(words, "log-tag", NULL, 2))
        return strncmp(words->at[1], TAG, strlen(TAG)) == 0 && is_uuid(words->at[1] + strlen(TAG)) &&
               keep_once(reader->tag, sizeof(reader->tag), words->at[1] + strlen(TAG));
    return false;
}

static bool defaults_line(struct reader *reader)
{
    const struct words *words = &reader->words;
    static const char *const options[] = {"httplog", "dontlognull", "http-server-close", "forwardfor"};
    struct proxy *proxy = reader->proxy;
    struct {
        const char *name;
        uint32_t *seconds;
    } timeouts[] = {
        {"http-request", &proxy->timeout_http_request},
        {"connect", &proxy->timeout_connect},
        {"client", &proxy->timeout_client},
        {"server", &proxy->timeout_server},
        {"http-keep-alive", &proxy->timeout_http_keep_alive},
    };
    if (are(words, "log", "global", 2) || are(words, "mode", "http", 2))
        return true;
    if (are(words, "retries", NULL, 2))
        return number(words->at[1], "") > 0;
    if (are(words, "option", NULL, 2))
        for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
            if (is(words, 1, options[i]))
                return true;
    if (are(words, "timeout", NULL, 3))
        for (size_t i = 0; i < sizeof(timeouts) / sizeof(timeouts[0]); i++)
            if (is(words, 1, timeouts[i].name) && *timeouts[i].seconds == 0)
                return (*timeouts[i].seconds = number(words->at[2], "s")) > 0;
    return false;
}

static bool table_line(struct reader *reader, size_t which)
{
    const struct words *words = &reader->words;
    struct window *window = which == 0 ? &reader->proxy->base : &reader->proxy->burst;
    if (!are(words, "stick-table", "type", 9) || !is(words, 3, "size") || !is(words, 5, "expire") ||
        !is(words, 7, "store") || number(words->at[6], "s") == 0 || reader->tables[which] != 0)
        return false;
    reader->tables[which] = is(words, 2, "ip") ? 4 : is(words, 2, "ipv6") ? 6 : 0;
    window->seconds = seconds_in(words->at[8], "http_req_rate(");
    return reader->tables[which] != 0 && window->seconds > 0;
}

/* <address>:<TCP port>, IPv6 with brackets or without. */
static bool bind_line(struct reader *reader)
{
    const struct words *words = &reader->words;
    struct proxy *proxy = reader->proxy;
    struct place *place = &proxy->places[proxy->place_n];
    struct sockaddr_in *four = (struct sockaddr_in *)&place->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&place->address;
    char *host = words->at[1];
    char *colon = strrchr(host, ':');
    bool interface = words->n == 4 && is(words, 2, "interface");
    uint32_t port;
    if (proxy->place_n == MAX_BINDS || (words->n != 2 && !interface) || colon == NULL ||
        !keep_once(place->text, sizeof(place->text), host))
        return false;
    if (interface && !keep_once(place->interface, sizeof(place->interface), words->at[3]))
        return false;
    port = number(colon + 1, "");
    *colon = 0;
    if (port == 0 || port > 65535)
        return false;
    if (host[0] == '[' && colon[-1] == ']') {
        host++;
        colon[-1] = 0;
    }
    if (strchr(host, ':') == NULL && inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        place->length = sizeof(*four);
    } else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        place->length = sizeof(*six);
    } else {
        return false;
    }
    proxy->place_n++;
    return true;
}

static bool request_line(struct reader *reader)
{
    const struct words *words = &reader->words;
    static const char *const tables[] = {"base_rate_limiter", "burst_rate_limiter"};
    static const char *const trackers[] = {"track-sc0", "track-sc1"};
    static const char *const conditions[] = {"src_http_req_rate(base_rate_limiter)",
                                             "src_http_req_rate(burst_rate_limiter)"};
    struct proxy *proxy = reader->proxy;
    if (are(words, "http-request", "del-header", 3))
        return header_kind(words->at[2]) != KIND_NONE;
    if (are(words, "http-request", "set-header", 4) || are(words, "http-request", "add-header", 4)) {
        enum kind kind = header_kind(words->at[2]);
        if (kind == KIND_NONE || proxy->kind != KIND_NONE || !is_uuid(words->at[3]))
            return false;
        proxy->kind = kind;
        return keep_once(proxy->uuid, sizeof(proxy->uuid), words->at[3]);
    }
    for (size_t i = 0; i < 2; i++) {
        if (are(words, "http-request", trackers[i], 5))
            return is(words, 2, "src") && is(words, 3, "table") && is(words, 4, tables[i]) &&
                   once(&reader->tracked[i]);
        if (are(words, "http-request", "deny", 10) && is(words, 2, "deny_status") && is(words, 3, "429") &&
            is(words, 4, "if") && is(words, 5, "{") && is(words, 6, conditions[i]) && is(words, 7, "gt") &&
            is(words, 9, "}")) {
            struct window *window = i == 0 ? &proxy->base : &proxy->burst;
            window->limit = number(words->at[8], "");
            return window->limit > 0 && once(&reader->denied[i]);
        }
    }
    return false;
}

static bool listen_line(struct reader *reader)
{
    const struct words *words = &reader->words;
    if (is(words, 0, "bind"))
        return bind_line(reader);
    if (are(words, "server", "metadata", 3))
        return words->at[2][0] == '/' && once(&reader->server);
    return request_line(reader);
}

static bool begin_section(struct reader *reader)
{
    const struct words *words = &reader->words;
    static const struct {
        const char *first;
        const char *second;
        enum section section;
    } sections[] = {
        {"global", NULL, SECTION_GLOBAL},
        {"defaults", NULL, SECTION_DEFAULTS},
        {"backend", "base_rate_limiter", SECTION_BASE},
        {"backend", "burst_rate_limiter", SECTION_BURST},
        {"listen", "listener", SECTION_LISTEN},
    };
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        unsigned bit = 1u << sections[i].section;
        if (are(words, sections[i].first, sections[i].second, sections[i].second == NULL ? 1 : 2) &&
            !(reader->sections & bit)) {
            reader->sections |= bit;
            reader->section = sections[i].section;
            return true;
        }
    }
    return false;
}

static bool one_line(struct reader *reader)
{
    if (begin_section(reader))
        return true;
    switch (reader->section) {
    case SECTION_GLOBAL:
        return global_line(reader);
    case SECTION_DEFAULTS:
        return defaults_line(reader);
    case SECTION_BASE:
    case SECTION_BURST:
        return table_line(reader, reader->section == SECTION_BASE ? 0 : 1);
    case SECTION_LISTEN:
        return listen_line(reader);
    default:
        return false;
    }
}

/* What is there must belong together; NULL, or what does not. */
static const char *missing(struct reader *reader)
{
    const struct proxy *proxy = reader->proxy;
    bool limited = reader->tables[0] != 0;
    for (size_t i = 0; i < 2; i++)
        if ((reader->tables[i] != 0) != limited || reader->tracked[i] != limited || reader->denied[i] != limited ||
            reader->tables[i] != reader->tables[0])
            return "a part of the rate limits";
    if (proxy->kind == KIND_NONE)
        return "the header with the id of a network or router";
    if (reader->tag[0] != 0 && strcmp(reader->tag, proxy->uuid) != 0)
        return "the same id in log-tag and in the header";
    if (proxy->pid_file[0] == 0)
        return "pidfile";
    if (!reader->daemon)
        return "daemon";
    if (proxy->place_n == 0)
        return "bind";
    return reader->server ? NULL : "server metadata";
}

/* Whether a line is the one by which metadata proxies of Neutron's are told from all others. */
static bool names_a_scope(const struct words *words)
{
    return words->n == 4 && is(words, 0, "http-request") &&
           (is(words, 1, "set-header") || is(words, 1, "add-header")) &&
           (strncmp(words->at[2], "X-Neutron-", 10) == 0 || strncmp(words->at[2], "X-OVN-", 6) == 0);
}

enum reading config_read(char *text, size_t length, struct proxy *proxy, char said[MAX_SAID])
{
    static struct reader reader;
    unsigned line_number = 0;
    bool neutrons = false;
    bool failed = false;
    char *line = text;
    memset(&reader, 0, sizeof(reader));
    memset(proxy, 0, sizeof(*proxy));
    reader.proxy = proxy;
    if (memchr(text, 0, length) != NULL)
        return READ_FOREIGN;
    while (line < text + length) {
        char *end = memchr(line, '\n', (size_t)(text + length - line));
        bool known;
        line_number++;
        if (end == NULL)
            end = text + length; /* there is room for the 0 */
        *end = 0;
        known = cut(&reader.words, line);
        neutrons |= known && names_a_scope(&reader.words);
        if (!failed && !(known && (reader.words.n == 0 || one_line(&reader)))) {
            failed = true;
            say(said, "line %u is not one that Neutron's agents are known to write", line_number);
        }
        line = end + 1;
    }
    if (!neutrons)
        return READ_FOREIGN;
    if (!failed && missing(&reader) != NULL) {
        failed = true;
        say(said, "this is missing: %s", missing(&reader));
    }
    if (failed)
        return READ_UNKNOWN;
    proxy->rate_version = reader.tables[0];
    return READ_PROXY;
}
