/* The two sides that the core stands between. Guests ask, and read every byte that they get; Nova reads every byte that it
 * gets, and answers. Both know who asked for what, so both see at once when something goes to the wrong place:
 *
 * - A request that a guest makes has a token in its target. Its content is made of the token.
 * - An answer that Nova makes is a record: for which request on which connection, under which identity. Its number stands
 *   in its header X-Mark, and in every 16 bytes of its content, behind the byte MARK, which nobody else may send.
 *
 * Guests that send arbitrary bytes ("wild") have no tokens; marks are looked for in what they get all the same. */
#ifndef FUZZ_PEOPLE_H
#define FUZZ_PEOPLE_H

#include "python.h"
#include "reader.h"

enum { GUESTS = 640, SERVERS = 256, TOKENS = 1024, RECORDS = 1024, WAITING = 32, MARK = 0xf5, CELL = 16 };

struct token {
    bool used;
    int key;
    unsigned guest;        /* serial number */
    bool wild;             /* its guest sent arbitrary bytes too: nothing is known of it */
    bool for_head, http10, expects, repeatable, malformed;
    size_t length;         /* of its content */
    unsigned seen;         /* how often it reached Nova */
};

struct guest {
    bool used;
    unsigned serial;
    struct wire *wire;     /* NULL: over */
    int key;
    bool wild;
    struct bytes todo;     /* what it will send */
    uint16_t waiting[WAITING]; /* tokens whose answers have not come, oldest first */
    unsigned waiting_n;
    /* How far it has read. */
    enum { R_HEAD, R_LENGTH, R_CHUNK_SIZE, R_CHUNK, R_CHUNK_END, R_TRAILER, R_CLOSE, R_OVER } reading;
    struct bytes head;     /* of an answer, or a line of chunked coding */
    uint64_t left;         /* of the content or chunk */
    uint64_t begun_at;     /* messages that the loop had taken when the answer began */
    int record;            /* NOBODY: not one of Nova's with a mark */
    size_t content;        /* bytes of it so far */
    bool ends_after, no_content;
    unsigned answers;
    unsigned mark_n;       /* digits of a mark, 0: none so far */
    uint32_t mark;
    int body_token;        /* whose content is not complete */
    size_t body_made;
};

enum { F_NONE, F_LENGTH, F_CHUNKED, F_CLOSE };

struct record {
    unsigned server;       /* serial number */
    unsigned request;      /* which of its requests; 0: none had come */
    int token, key, put;
    int status, framing;
    size_t length;         /* of the content as it is announced; SIZE_MAX: not known */
    size_t made;           /* of it that was made */
    uint64_t start;        /* where in all that the server sends it begins */
    uint64_t stop;         /* and stops */
    uint64_t end;          /* the same if it is whole then, else 0 */
    bool needs_end;        /* it ends with the connection */
    bool late;             /* it came when it was not this request's turn any more: HTTP cannot tell whose it is */
    bool mixed;            /* arbitrary bytes follow it, or its end came too early */
    bool whole;            /* all of it has gone to the core */
};

struct server {
    bool used;
    unsigned serial;
    struct wire *wire;
    struct bytes todo;     /* what it will send */
    uint64_t sent;         /* bytes that have gone */
    bool end_wanted;       /* FIN after the last byte */
    bool wild;             /* it sends arbitrary bytes too */
    uint64_t dirty_at;     /* from this byte on it sent what makes the connection useless for another request */
    unsigned upstreams;    /* addresses that had been set when it was made */
    unsigned request_n;
    bool in_request;       /* part of one has come */
    struct bytes head;
    uint64_t body_left, body_at;
    bool tried;            /* the core has begun to send a request */
    uint64_t tried_at, tried_us; /* messages taken then, and the time */
    int token, key, put;   /* of the present request */
    bool complete;         /* it is here */
    bool for_head, wants_content;
    unsigned answers;      /* final ones made for it */
    uint64_t answered_at;  /* where the first ends, in `sent`; 0: not whole */
};

static struct {
    struct guest guests[GUESTS];
    unsigned guest_most, guest_serial;
    struct server servers[SERVERS];
    unsigned server_most, server_serial;
    struct token tokens[TOKENS];
    unsigned token_n;
    struct record records[RECORDS];
    unsigned record_n;
    bool raw_answers; /* Nova sent arbitrary bytes somewhere */
    uint64_t turn_us; /* the time when epoll was last asked */
    uint64_t requests_at_nova, answers_at_guests;
    uint64_t requests_made;
} people;

/* Content repeats after so many bytes; a part of it that is moved, lost or repeated shows all the same, as only whole rounds
 * could go unseen. Capital letters are Nova's, small ones the guests'. */
enum { ROUND = 26 * CELL };

static void make_round(char first, unsigned number, uint8_t *to)
{
    char digits[9];
    snprintf(digits, sizeof digits, "%08x", number);
    for (unsigned cell = 0; cell < 26; cell++, to += CELL) {
        to[0] = first == 'A' ? MARK : '.';
        memcpy(to + 1, digits, 8);
        for (unsigned i = 9; i < CELL; i++)
            to[i] = (uint8_t)(first + (cell * 7 + i) % 26);
    }
}

/* Makes `length` bytes of a content, from `at` on. */
static void make_content(char first, unsigned number, size_t at, uint8_t *to, size_t length)
{
    uint8_t round[ROUND];
    make_round(first, number, round);
    while (length) {
        size_t n = ROUND - at % ROUND < length ? ROUND - at % ROUND : length;
        memcpy(to, round + at % ROUND, n);
        to += n;
        at += n;
        length -= n;
    }
}

static bool is_content(char first, unsigned number, size_t at, const uint8_t *data, size_t length)
{
    uint8_t round[ROUND];
    make_round(first, number, round);
    while (length) {
        size_t n = ROUND - at % ROUND < length ? ROUND - at % ROUND : length;
        if (memcmp(data, round + at % ROUND, n) != 0)
            return false;
        data += n;
        at += n;
        length -= n;
    }
    return true;
}

/* What a mark in the hands of a guest means. */
static void judge_mark(const struct guest *guest, uint32_t number)
{
    if (number >= people.record_n)
        complain("guest %u got a mark that nobody made: %x", guest->serial, number);
    const struct record *record = &people.records[number];
    if (record->late)
        return;
    if (record->key == NOBODY)
        return; /* sent before any request: judged when the request comes */
    if (record->key != guest->key)
        complain("a guest of key %d got what was for key %d (record %u, server %u, request %u)", guest->key, record->key, number,
                 record->server, record->request);
}

/* Guests that sent arbitrary bytes: marks are all that is looked for. */
static void guest_scan(struct guest *guest, const uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        uint8_t c = data[i];
        if (c == MARK) {
            guest->mark_n = 1;
            guest->mark = 0;
        } else if (guest->mark_n) {
            int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
            guest->mark = guest->mark << 4 | (uint32_t)digit;
            guest->mark_n = digit < 0 ? 0 : guest->mark_n + 1;
            if (guest->mark_n == 9) {
                judge_mark(guest, guest->mark);
                guest->mark_n = 0;
            }
        }
    }
}

static void guest_content(struct guest *guest, const uint8_t *data, size_t length)
{
    if (guest->record == NOBODY) {
        if (memchr(data, MARK, length))
            complain("guest %u got a mark in an answer that has none", guest->serial);
    } else {
        const struct record *record = &people.records[guest->record];
        size_t known = guest->content < record->made ? record->made - guest->content : 0;
        if (known > length)
            known = length;
        if (known < length && !record->mixed && !record->late)
            complain("guest %u got more content than was made of record %d", guest->serial, guest->record);
        if (!record->late && !is_content('A', (unsigned)guest->record, guest->content, data, known))
            complain("the content of record %d reached guest %u with other bytes", guest->record, guest->serial);
        guest_scan(guest, data + known, length - known);
    }
    guest->content += length;
}

static void guest_answered(struct guest *guest)
{
    people.answers_at_guests++;
    guest->answers++;
    if (guest->record != NOBODY) {
        const struct record *record = &people.records[guest->record];
        size_t length = record->length == SIZE_MAX ? record->made : record->length;
        if (record->framing == F_NONE)
            length = 0;
        if (!record->late && !record->mixed && (!record->whole || guest->content != length))
            complain("guest %u takes an answer for whole that is not: record %d, %zu bytes of %zu", guest->serial, guest->record,
                     guest->content, length);
    }
    trace("    guest %u: answered", guest->serial);
    if (guest->waiting_n) {
        guest->waiting_n--;
        memmove(guest->waiting, guest->waiting + 1, guest->waiting_n * sizeof *guest->waiting);
    }
    guest->reading = guest->ends_after ? R_OVER : R_HEAD;
}

/* An answer of the core's own: does it say what it may? */
static void judge_own(const struct guest *guest, const struct answer_head *head)
{
    static const int statuses[] = {400, 404, 408, 413, 414, 429, 431, 501, 502, 503, 504};
    bool known = false;
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++)
        known |= statuses[i] == head->status;
    if (people.raw_answers && !(known && head->has_date))
        return; /* perhaps one of Nova's */
    if (!known || !head->has_date || head->content_length < 0)
        complain("guest %u got an answer that is neither Nova's nor ours, status %d", guest->serial, head->status);
    if (head->status == 503 && !head->has_retry_after && !people.raw_answers)
        complain("503 without Retry-After");
    if (head->status == 404 && !python.ever_absent[guest->key] && !people.raw_answers)
        complain("404 for key %d, of which nobody said that it is absent", guest->key);
}

/* The head of an answer is complete. */
static void guest_head(struct guest *guest, const uint8_t *data, size_t length)
{
    struct answer_head head;
    const struct token *token = guest->waiting_n ? &people.tokens[guest->waiting[0]] : NULL;
    const char *wrong = read_answer_head(data, length, &head);
    if (wrong)
        complain("guest %u got a head with %s", guest->serial, wrong);
    trace("    guest %u: status %d%s", guest->serial, head.status, head.mark.length ? " of Nova's" : "");
    if (head.status == 100) {
        if (!token || !token->expects || head.line_n)
            complain("100 Continue for guest %u, which asked for none", guest->serial);
        return;
    }
    if (!token && !(head.status == 503 && head.close && !head.mark.length))
        complain("guest %u got an answer, status %d, and had asked nothing", guest->serial, head.status);
    guest->record = NOBODY;
    guest->content = 0;
    guest->ends_after = head.close || (token && token->http10 && !head.keeps);
    if (head.mark.length) {
        uint32_t number = 0;
        if (head.mark.length != 9 || head.mark.data[0] != MARK)
            complain("a mark that is none");
        for (int i = 1; i < 9; i++)
            number = number << 4 | (uint32_t)(strchr("0123456789abcdef", head.mark.data[i]) - "0123456789abcdef");
        judge_mark(guest, number);
        struct record *record = &people.records[number];
        guest->record = (int)number;
        if (!record->late) {
            if (record->token != NOBODY && record->token != guest->waiting[0])
                complain("guest %u got the answer to token %d, and waits for %d", guest->serial, record->token, guest->waiting[0]);
            if (record->status != head.status)
                complain("status %d became %d", record->status, head.status);
            if (record->put != NOBODY && python.puts[record->put].revoked_at <= guest->begun_at)
                complain("an answer under identity %d began although it was revoked", record->put);
        }
    } else {
        judge_own(guest, &head);
    }
    /* Who refuses a head that it could not read does not know that it was HEAD. */
    bool for_head = token && token->for_head && !(head.close && !head.mark.length);
    if (for_head || head.status == 204 || head.status == 304) {
        guest_answered(guest);
    } else if (head.chunked) {
        guest->reading = R_CHUNK_SIZE;
    } else if (head.content_length >= 0) {
        guest->left = (uint64_t)head.content_length;
        guest->reading = R_LENGTH;
        if (guest->left == 0)
            guest_answered(guest);
    } else {
        if (!guest->ends_after)
            complain("an answer to guest %u without a framing", guest->serial);
        guest->reading = R_CLOSE;
    }
}

/* Bytes that the kernel took from the core for a guest. */
static void guest_reads(struct guest *guest, const uint8_t *data, size_t length)
{
    if (guest->wild) {
        guest_scan(guest, data, length);
        return;
    }
    for (size_t at = 0; at < length;) {
        size_t n = length - at;
        switch (guest->reading) {
        case R_HEAD:
            if (bytes_length(&guest->head) == 0) {
                model_follow();
                guest->begun_at = python.done;
            }
            at += head_grows(&guest->head, data + at, n);
            if (head_is_complete(&guest->head)) {
                guest_head(guest, guest->head.data + guest->head.start, bytes_length(&guest->head));
                bytes_clear(&guest->head);
            }
            break;
        case R_LENGTH:
        case R_CHUNK:
            if (n > guest->left)
                n = (size_t)guest->left;
            guest_content(guest, data + at, n);
            at += n;
            guest->left -= n;
            if (guest->left == 0) {
                if (guest->reading == R_LENGTH)
                    guest_answered(guest);
                else
                    guest->reading = R_CHUNK_END;
            }
            break;
        case R_CHUNK_SIZE:
        case R_CHUNK_END:
        case R_TRAILER: {
            bytes_append(&guest->head, data + at, 1);
            uint8_t c = data[at++];
            if (bytes_length(&guest->head) > 20)
                complain("a line of chunked coding that does not end");
            if (c != '\n')
                break;
            struct text line = {guest->head.data + guest->head.start, bytes_length(&guest->head)};
            if (line.length < 2 || line.data[line.length - 2] != '\r')
                complain("a line of chunked coding without CRLF");
            line.length -= 2;
            if (guest->reading == R_CHUNK_SIZE) {
                guest->left = 0;
                for (size_t i = 0; i < line.length; i++) {
                    const char *digit = strchr("0123456789abcdef", line.data[i]);
                    if (!digit || !line.data[i])
                        complain("a chunk's size with %02x", line.data[i]);
                    guest->left = guest->left * 16 + (uint64_t)(digit - "0123456789abcdef");
                }
                if (line.length == 0)
                    complain("a chunk without a size");
                guest->reading = guest->left ? R_CHUNK : R_TRAILER;
            } else {
                if (line.length)
                    complain("bytes where a chunk should end, or trailers");
                if (guest->reading == R_TRAILER)
                    guest_answered(guest);
                else
                    guest->reading = R_CHUNK_SIZE;
            }
            bytes_clear(&guest->head);
            break;
        }
        case R_CLOSE:
            guest_content(guest, data + at, n);
            at = length;
            break;
        case R_OVER:
            complain("guest %u got bytes behind the last answer", guest->serial);
        }
    }
}

/* The core's side of the connection ended: by a FIN, or (reset) so that the guest sees that it was cut. */
static void guest_sees_end(struct guest *guest, bool reset)
{
    if (!guest->wild && guest->reading == R_CLOSE && !reset) {
        guest->ends_after = true;
        guest_answered(guest);
    }
    if (!guest->wild && guest->reading == R_HEAD && bytes_length(&guest->head) == 0)
        guest->reading = R_OVER;
}

static struct guest *guest_new(int key, int listener_fd)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        struct guest *guest = &people.guests[i];
        if (guest->used)
            continue;
        struct wire *wire = kernel_arrive(listener_fd);
        if (!wire)
            return NULL;
        struct bytes todo = guest->todo, head = guest->head;
        *guest = (struct guest){.used = true, .serial = ++people.guest_serial, .wire = wire, .key = key, .record = NOBODY,
                                .body_token = NOBODY, .todo = todo, .head = head};
        bytes_clear(&guest->todo);
        bytes_clear(&guest->head);
        if (people.guest_most <= i)
            people.guest_most = i + 1;
        wire->far = guest;
        typeof(addresses[0]) *address = &addresses[key_address(key)];
        struct sockaddr_in *four = (struct sockaddr_in *)&wire->peer;
        struct sockaddr_in6 *six = (struct sockaddr_in6 *)&wire->peer;
        if (address->family == AF_INET) {
            *four = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(40000)};
            memcpy(&four->sin_addr, address->bytes + 12, 4);
            wire->peer_length = sizeof *four;
        } else {
            /* Of other than link-local addresses the interface says nothing. */
            *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_scope_id = address->interface ? address->interface : 3};
            memcpy(&six->sin6_addr, address->bytes, 16);
            wire->peer_length = sizeof *six;
        }
        trace("    guest %u: connects, key %d", guest->serial, key);
        return guest;
    }
    return NULL;
}

static void guest_delivers(struct guest *guest, size_t length)
{
    if (length > bytes_length(&guest->todo))
        length = bytes_length(&guest->todo);
    if (!guest->wire || !length)
        return;
    far_bytes(guest->wire, guest->todo.data + guest->todo.start, length);
    guest->todo.start += length;
    kernel.progress++;
    trace("    guest %u: sends %zu bytes", guest->serial, length);
}

/* Nova. */

static struct server *server_new(struct wire *wire)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        struct server *server = &people.servers[i];
        if (server->used)
            continue;
        struct bytes todo = server->todo, head = server->head;
        *server = (struct server){.used = true, .serial = ++people.server_serial, .wire = wire, .token = NOBODY, .key = NOBODY,
                                  .put = NOBODY, .dirty_at = UINT64_MAX, .todo = todo, .head = head};
        bytes_clear(&server->todo);
        bytes_clear(&server->head);
        if (people.server_most <= i)
            people.server_most = i + 1;
        wire->far = server;
        return server;
    }
    complain("more than %d connections to Nova", SERVERS);
}

/* The core is about to send on this connection. When it begins a request, this is the moment at which its identity must be
 * good, and the connection clean. */
static void server_tried(struct server *server)
{
    if (server->tried || server->in_request)
        return;
    model_follow();
    server->tried = true;
    server->tried_at = python.done;
    server->tried_us = people.turn_us;
    if (server->request_n == 0)
        return;
    if (server->wire->unclean)
        complain("server %u: a request is sent on a connection that was not quiet when epoll was asked", server->serial);
    if (!server->complete)
        complain("server %u: a request is sent before the last one was there", server->serial);
    if (server->upstreams != python.upstreams)
        complain("server %u: a request is sent to an address that was replaced", server->serial);
    if (server->wild)
        return;
    if (server->sent > server->dirty_at)
        complain("server %u: a request is sent on a connection that should have been closed", server->serial);
    if (server->answered_at == 0 || server->sent < server->answered_at)
        complain("server %u: a request is sent before the last one was answered", server->serial);
}

static void server_head(struct server *server, const uint8_t *data, size_t length)
{
    struct sent_head head;
    const char *wrong = read_sent_head(data, length, &head);
    if (wrong)
        complain("Nova got a head with %s", wrong);
    people.requests_at_nova++;
    server->request_n++;
    server->token = NOBODY;
    server->complete = false;
    server->answers = 0;
    server->answered_at = 0;
    server->tried = false;
    server->for_head = text_is(head.method, "HEAD");
    /* Under which identity, and was it good? */
    if (head.instance.length < 10 || memcmp(head.instance.data, "instance-", 9) != 0 || head.project.length < 9)
        complain("an identity that nobody put");
    int64_t number = text_number((struct text){head.instance.data + 9, head.instance.length - 9});
    if (number < 0 || number >= python.put_n ||
        text_number((struct text){head.project.data + 8, head.project.length - 8}) != number)
        complain("instance and project of different identities");
    struct put *put = &python.puts[number];
    if (!text_is(head.address, addresses[key_address(put->key)].text) || !text_is(head.signature, put->signature) ||
        !text_is(head.host, "nova:8775"))
        complain("address, signature or host are not those of identity %ld", (long)number);
    if (!(put->since <= server->tried_at && server->tried_at < put->until))
        complain("a request is sent under identity %ld, which was not the present one", (long)number);
    if (server->tried_us >= put->ends_us)
        complain("a request is sent under identity %ld, which had ended", (long)number);
    server->put = (int)number;
    server->key = put->key;
    /* Whose request? */
    if (head.target.length > 2 && memcmp(head.target.data, "/~", 2) == 0) {
        const uint8_t *query = memchr(head.target.data, '?', head.target.length);
        size_t end = query ? (size_t)(query - head.target.data) : head.target.length;
        int64_t which = text_number((struct text){head.target.data + 2, end - 2});
        if (which < 0 || which >= people.token_n)
            complain("a token that nobody has");
        struct token *token = &people.tokens[which];
        server->token = (int)which;
        if (token->key != server->key)
            complain("the request of a guest of key %d goes under the identity of key %d", token->key, server->key);
        if (!token->wild) {
            if (token->malformed)
                complain("a malformed request reached Nova");
            if (token->for_head != server->for_head)
                complain("HEAD became something else, or the other way round");
            if (token->length != (head.content_length < 0 ? 0 : (size_t)head.content_length))
                complain("content of %zu bytes became %ld", token->length, (long)head.content_length);
            if (!token->repeatable && token->seen)
                complain("a request that may not be repeated was sent twice");
        }
        token->seen++;
    }
    bool repeatable = (server->for_head || text_is(head.method, "GET")) && head.content_length < 0;
    if (!repeatable && server->request_n > 1)
        complain("a request that may not be repeated goes out on a kept connection");
    for (unsigned i = 0; i < people.record_n && server->request_n == 1; i++) {
        struct record *record = &people.records[i];
        if (record->server == server->serial && record->key == NOBODY)
            record->key = server->key; /* sent unasked on a fresh connection: it may only reach this guest */
    }
    server->body_left = head.content_length < 0 ? 0 : (uint64_t)head.content_length;
    server->body_at = 0;
    server->in_request = true;
    trace("    server %u: request %u, token %d, key %d, identity %d, %lu bytes of content", server->serial, server->request_n,
          server->token, server->key, server->put, (unsigned long)server->body_left);
}

/* Bytes that the kernel took from the core for Nova. */
static void server_reads(struct server *server, const uint8_t *data, size_t length)
{
    while (length) {
        if (!server->in_request || bytes_length(&server->head)) {
            server->in_request = true;
            size_t n = head_grows(&server->head, data, length);
            data += n;
            length -= n;
            if (!head_is_complete(&server->head))
                continue;
            server_head(server, server->head.data + server->head.start, bytes_length(&server->head));
            bytes_clear(&server->head);
        } else {
            size_t n = length < server->body_left ? length : (size_t)server->body_left;
            bool known = server->token != NOBODY && !people.tokens[server->token].wild;
            if (known && !is_content('a', (unsigned)server->token, (size_t)server->body_at, data, n))
                complain("the content of token %d has other bytes", server->token);
            server->body_at += n;
            server->body_left -= n;
            data += n;
            length -= n;
        }
        if (bytes_length(&server->head) == 0 && server->body_left == 0) {
            server->in_request = false;
            server->complete = true;
            if (length)
                complain("server %u: a second request before the first was answered", server->serial);
        }
    }
}

/* Bytes that come when their request has been answered already. If the connection serves another one by then, or may get
 * one in this very turn, nobody can tell whose they are: docs/architecture.md, "What HTTP/1.1 cannot give". */
static void server_sends_late(struct server *server, size_t length)
{
    unsigned begun = server->request_n + server->tried;
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server != server->serial || record->start >= server->sent + length || record->stop <= server->sent)
            continue;
        if (record->request < begun && begun > 1)
            record->late = true;
        else if (kernel.in_turn && server->answers > 1)
            record->late = true;
        if (record->late)
            server->wild = true;
    }
    if (kernel.in_turn && server->sent + length > server->dirty_at)
        server->wild = true;
}

/* An orderly end: for content that ends with the connection it is the only sign that it is whole. */
static void server_ends(struct server *server)
{
    far_end(server->wire);
    kernel.progress++;
    trace("    server %u: ends", server->serial);
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server != server->serial || !record->needs_end)
            continue;
        if (record->stop <= server->sent)
            record->whole = true;
        else
            record->mixed = true;
    }
}

static void server_delivers(struct server *server, size_t length)
{
    if (length > bytes_length(&server->todo))
        length = bytes_length(&server->todo);
    if (!server->wire || server->wire->connecting || server->wire->in_ended || server->wire->down)
        return;
    if (length) {
        server_sends_late(server, length);
        far_bytes(server->wire, server->todo.data + server->todo.start, length);
        server->todo.start += length;
        server->sent += length;
        kernel.progress++;
        trace("    server %u: sends %zu bytes", server->serial, length);
    }
    if (server->end_wanted && bytes_length(&server->todo) == 0)
        server_ends(server);
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server == server->serial && record->end && record->end <= server->sent)
            record->whole |= !record->needs_end;
    }
}

#endif
