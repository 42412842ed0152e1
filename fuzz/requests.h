/* What guests ask and what Nova answers: templates, each with one number that varies it. Their order is part of the input's
 * format (seeds.py reads it from here): new ones go to the end. */
#ifndef FUZZ_REQUESTS_H
#define FUZZ_REQUESTS_H

#include "nova.h"

enum ask {
    ASK_GET,
    ASK_GET_CLOSE,
    ASK_GET_10,
    ASK_GET_10_KEEP,
    ASK_HEAD,
    ASK_POST,          /* content of this length */
    ASK_POST_CHUNKED,
    ASK_POST_EXPECT,
    ASK_POST_SLOW,     /* the content comes later: OP_BODY */
    ASK_PUT_NOTHING,
    ASK_FORGED,        /* says that it is somebody else */
    ASK_FOLDED,
    ASK_BOTH,          /* two framings */
    ASK_TARGET,        /* a long one */
    ASK_HEADERS,       /* many */
    ASK_ABSOLUTE,
    ASK_TRACE,
    ASK_CODING,
    ASK_BAD_CHUNK,
    ASK_GET_CONTENT,
    ASK_BARE_LF,
    ASK_HEAD_CLOSE,
    ASK_TWICE,         /* two, pipelined */
    ASK_PASSED,        /* with headers that pass to Nova */
    ASK_EMPTY_LINE,
    ASK_ASTERISK,
    ASK_CONNECT,
    ASK_DELETE,
    ASK_LARGE_HEAD,
    ASK_CHUNKED_EXTRAS,
    ASK_EXPECT_NOTHING,
    ASK_MANY,          /* several, pipelined */
    ASKS
};

enum answer {
    ANSWER_LENGTH,
    ANSWER_CHUNKED,
    ANSWER_CLOSE,          /* until the connection ends */
    ANSWER_NOTHING,        /* Content-Length: 0 */
    ANSWER_204,
    ANSWER_304,
    ANSWER_CONTINUE,       /* 100, then the answer */
    ANSWER_INTERIMS,       /* as many as the number says */
    ANSWER_CUT,            /* the connection ends in the middle */
    ANSWER_EXTRA,          /* more than it announces */
    ANSWER_BOTH,           /* two framings */
    ANSWER_BAD_CHUNK,
    ANSWER_10,
    ANSWER_10_KEEP,
    ANSWER_LENGTH_CLOSE,
    ANSWER_403,
    ANSWER_LARGE_HEAD,
    ANSWER_404,
    ANSWER_NOMINATED,
    ANSWER_TWICE,
    ANSWER_TRAILERS,
    ANSWER_HALF,           /* half the content; the rest never comes */
    ANSWER_CHUNKED_CUT,
    ANSWER_CLOSE_LATER,    /* until the connection ends, and it does not by itself */
    ANSWER_101,
    ANSWER_500,
    ANSWER_SMALL_CHUNKS,
    ANSWERS
};

static unsigned token_new(struct guest *guest, size_t length)
{
    unsigned number = people.token_n++;
    people.tokens[number] = (struct token){.used = true, .key = guest->key, .guest = guest->serial, .wild = guest->wild,
                                           .repeatable = length == 0, .length = length, .made_at = python.done};
    guest->waiting[guest->waiting_n++] = (uint16_t)number;
    people.requests_made++;
    trace("    guest %u: token %u", guest->serial, number);
    return number;
}

static void put_content(struct bytes *to, unsigned token, size_t from, size_t length)
{
    make_content('a', token, from, bytes_append(to, NULL, length), length);
}

static void put_chunks(struct bytes *to, unsigned token, size_t length, const char *extension)
{
    size_t most = length < 64 ? 7 : length / 3;
    for (size_t at = 0; at < length;) {
        size_t n = length - at < most ? length - at : most;
        bytes_print(to, "%zx%s\r\n", n, extension);
        put_content(to, token, at, n);
        bytes_print(to, "\r\n");
        at += n;
    }
}

/* One request into guest->todo. */
static void guest_asks(struct guest *guest, enum ask ask, size_t number)
{
    struct bytes *to = &guest->todo;
    if (!guest->wire || guest->waiting_n + 8 > WAITING || people.token_n + 8 > TOKENS || bytes_length(to) > 1 << 20 ||
        guest->body_token != NOBODY)
        return;
    bool content = ask == ASK_POST || ask == ASK_POST_CHUNKED || ask == ASK_POST_EXPECT || ask == ASK_POST_SLOW ||
                   ask == ASK_GET_CONTENT || ask == ASK_CHUNKED_EXTRAS;
    unsigned token = token_new(guest, content ? number : 0);
    struct token *about = &people.tokens[token];
    switch (ask) {
    case ASK_GET:
    default:
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        break;
    case ASK_GET_CLOSE:
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", token);
        break;
    case ASK_GET_10:
    case ASK_GET_10_KEEP:
        about->http10 = true;
        bytes_print(to, "GET /~%u HTTP/1.0\r\n%s\r\n", token, ask == ASK_GET_10 ? "" : "Connection: keep-alive\r\n");
        break;
    case ASK_HEAD:
    case ASK_HEAD_CLOSE:
        about->for_head = true;
        bytes_print(to, "HEAD /~%u HTTP/1.1\r\nHost: h\r\n%s\r\n", token, ask == ASK_HEAD ? "" : "Connection: x, close\r\n");
        break;
    case ASK_POST:
    case ASK_POST_EXPECT:
    case ASK_POST_SLOW:
    case ASK_GET_CONTENT:
        about->repeatable = ask == ASK_GET_CONTENT && number == 0;
        about->expects = ask == ASK_POST_EXPECT;
        bytes_print(to, "%s /~%u HTTP/1.1\r\nhost: h\r\nContent-Length: %zu\r\n%s\r\n", ask == ASK_GET_CONTENT ? "GET" : "POST",
                    token, number, about->expects ? "Expect: 100-continue\r\n" : "");
        if (ask == ASK_POST_SLOW) {
            guest->body_token = (int)token;
            guest->body_made = 0;
        } else {
            put_content(to, token, 0, number);
        }
        break;
    case ASK_POST_CHUNKED:
    case ASK_CHUNKED_EXTRAS:
        about->repeatable = false;
        bytes_print(to, "POST /~%u HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n", token);
        put_chunks(to, token, number, ask == ASK_POST_CHUNKED ? "" : ";a=\"b\"");
        bytes_print(to, ask == ASK_POST_CHUNKED ? "0\r\n\r\n" : "00;x\r\nX-Instance-ID: instance-0\r\nA:b\r\n\r\n");
        break;
    case ASK_PUT_NOTHING:
    case ASK_EXPECT_NOTHING:
        about->repeatable = false;
        about->expects = ask == ASK_EXPECT_NOTHING;
        bytes_print(to, "PUT /~%u HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n%s\r\n", token,
                    about->expects ? "Expect: 100-continue\r\n" : "");
        break;
    case ASK_FORGED:
        bytes_print(to,
                    "GET /~%u HTTP/1.1\r\nX-Instance-ID: instance-%zu\r\nX_Instance_ID: instance-0\r\nHost: h\r\n"
                    "X-Forwarded-For: 10.0.0.6\r\nX-Tenant-ID: project-%zu\r\nX-Instance-ID-Signature: 00\r\n"
                    "X-Metadata-Provider: a\r\nX-Neutron-Network-ID: b\r\nForwarded: for=10.0.0.6\r\n"
                    "Connection: x-forwarded-for, keep-alive\r\n\r\n",
                    token, number, number);
        break;
    case ASK_FOLDED:
        about->malformed = true;
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", token);
        break;
    case ASK_BOTH:
        about->malformed = true;
        bytes_print(to, "POST /~%u HTTP/1.1\r\nHost: h\r\n%s: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", token,
                    number & 1 ? "Content_Length" : "Content-Length");
        break;
    case ASK_TARGET: {
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        /* In the place before the version, so that the token stays what it is: a long query has no room in it. */
        to->end -= 22;
        about->wild = true;
        bytes_print(to, "?");
        memset(bytes_append(to, NULL, number), 'q', number);
        bytes_print(to, " HTTP/1.1\r\nHost: h\r\n\r\n");
        break;
    }
    case ASK_HEADERS:
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\n", token);
        for (size_t i = 0; i < number && i < 300; i++)
            bytes_print(to, "a%zu:\r\n", i);
        bytes_print(to, "\r\n");
        break;
    case ASK_ABSOLUTE:
        bytes_print(to, "GET http://other.example:%zu/~%u HTTP/1.1\r\nHost: h\r\n\r\n", number, token);
        break;
    case ASK_TRACE:
        about->malformed = true;
        bytes_print(to, "TRACE /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        break;
    case ASK_CODING:
        about->malformed = true;
        bytes_print(to, "POST /~%u HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", token);
        break;
    case ASK_BAD_CHUNK:
        about->malformed = true;
        bytes_print(to, "POST /~%u HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n%zug\r\n", token, number);
        break;
    case ASK_BARE_LF:
        about->malformed = true;
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\n\r\n", token);
        break;
    case ASK_TWICE:
    case ASK_MANY:
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        for (size_t i = 0; i < (ask == ASK_TWICE ? 1 : number % 6); i++) {
            token = token_new(guest, 0);
            bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        }
        break;
    case ASK_PASSED:
        bytes_print(to,
                    "GET /~%u HTTP/1.1\r\nHost: h\r\nAccept: */*\r\naccept-encoding:gzip\r\nACCEPT-LANGUAGE: de\r\n"
                    "If-Modified-Since: a\r\nIf-None-Match: \"b\"\r\nRange: bytes=0-%zu\r\nUser-Agent: \t c \r\nTE: trailers\r\n\r\n",
                    token, number);
        break;
    case ASK_EMPTY_LINE:
        bytes_print(to, "\r\nGET /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        break;
    case ASK_ASTERISK:
        about->malformed = true;
        bytes_print(to, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
        break;
    case ASK_CONNECT:
        about->malformed = true;
        bytes_print(to, "CONNECT /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        break;
    case ASK_DELETE:
        about->repeatable = false;
        bytes_print(to, "DELETE /~%u HTTP/1.1\r\nHost: h\r\n\r\n", token);
        break;
    case ASK_LARGE_HEAD:
        bytes_print(to, "GET /~%u HTTP/1.1\r\nHost: h\r\nUser-Agent: ", token);
        memset(bytes_append(to, NULL, number), 'u', number);
        bytes_print(to, "\r\n\r\n");
        break;
    }
}

/* More of the content that ASK_POST_SLOW announced. */
static void guest_goes_on(struct guest *guest, size_t number)
{
    if (guest->body_token == NOBODY)
        return;
    size_t left = people.tokens[guest->body_token].length - guest->body_made;
    if (number > left)
        number = left;
    put_content(&guest->todo, (unsigned)guest->body_token, guest->body_made, number);
    guest->body_made += number;
    if (number == left)
        guest->body_token = NOBODY;
}

static uint64_t server_place(const struct server *server)
{
    return server->sent + bytes_length(&server->todo);
}

static void server_is_dirty_from(struct server *server, uint64_t place)
{
    if (place < server->dirty_at)
        server->dirty_at = place;
}

/* What follows an answer that has no end becomes part of it. */
static void server_mixes(const struct server *server)
{
    for (unsigned i = 0; i < people.record_n; i++) {
        struct record *record = &people.records[i];
        if (record->server == server->serial && record->stop == server_place(server) && (!record->end || record->needs_end))
            record->mixed = true;
    }
}

static unsigned record_new(struct server *server, int status, int framing, size_t length)
{
    unsigned number = people.record_n++;
    server_mixes(server);
    people.records[number] = (struct record){
        .server = server->serial, .request = server->request_n, .token = server->token, .key = server->key, .put = server->put,
        .asked_at = server->asked_at, .may_ask_twice = server->may_ask_twice,
        .status = status, .framing = framing, .length = length, .start = server_place(server), .stop = UINT64_MAX};
    if (server->request_n == 0) {
        /* It speaks before it is asked: whether to a HEAD or a GET, nobody knows. */
        server->wild = true;
        people.records[number].mixed = true;
    }
    if (server->request_n == 0 || server->answers)
        server_is_dirty_from(server, server_place(server));
    return number;
}

static void put_mark(struct bytes *to, unsigned record)
{
    bytes_print(to, "X-Mark: %c%08x\r\n", MARK, record);
}

static void put_answer(struct bytes *to, unsigned record, size_t from, size_t length)
{
    make_content('A', record, from, bytes_append(to, NULL, length), length);
    if (people.records[record].made < from + length)
        people.records[record].made = from + length;
}

static void put_answer_chunks(struct bytes *to, unsigned record, size_t length, size_t most)
{
    for (size_t at = 0; at < length;) {
        size_t n = length - at < most ? length - at : most;
        bytes_print(to, "%zX\r\n", n);
        put_answer(to, record, at, n);
        bytes_print(to, "\r\n");
        at += n;
    }
}

/* One answer to the present request, into server->todo. */
static void server_answers(struct server *server, enum answer answer, size_t number)
{
    static const struct {
        const char *line;
        int status, framing;
        bool closes, whole;
    } kinds[ANSWERS] = {
        [ANSWER_LENGTH] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_CHUNKED] = {"HTTP/1.1 200 OK", 200, F_CHUNKED, false, true},
        [ANSWER_CLOSE] = {"HTTP/1.1 200 OK", 200, F_CLOSE, true, true},
        [ANSWER_NOTHING] = {"HTTP/1.1 200 ", 200, F_LENGTH, false, true},
        [ANSWER_204] = {"HTTP/1.1 204 No Content", 204, F_NONE, false, true},
        [ANSWER_304] = {"HTTP/1.1 304 Not Modified", 304, F_NONE, false, true},
        [ANSWER_CONTINUE] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_INTERIMS] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_CUT] = {"HTTP/1.1 200 OK", 200, F_LENGTH, true, false},
        [ANSWER_EXTRA] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_BOTH] = {"HTTP/1.1 200 OK", 200, F_LENGTH, true, false},
        [ANSWER_BAD_CHUNK] = {"HTTP/1.1 200 OK", 200, F_CHUNKED, true, false},
        [ANSWER_10] = {"HTTP/1.0 200 OK", 200, F_LENGTH, true, true},
        [ANSWER_10_KEEP] = {"HTTP/1.0 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_LENGTH_CLOSE] = {"HTTP/1.1 200 OK", 200, F_LENGTH, true, true},
        [ANSWER_403] = {"HTTP/1.1 403 Forbidden", 403, F_LENGTH, false, true},
        [ANSWER_LARGE_HEAD] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_404] = {"HTTP/1.1 404 Not Found", 404, F_LENGTH, false, true},
        [ANSWER_NOMINATED] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_TWICE] = {"HTTP/1.1 200 OK", 200, F_LENGTH, false, true},
        [ANSWER_TRAILERS] = {"HTTP/1.1 200 OK", 200, F_CHUNKED, false, true},
        [ANSWER_HALF] = {"HTTP/1.1 200 OK", 200, F_LENGTH, true, false},
        [ANSWER_CHUNKED_CUT] = {"HTTP/1.1 200 OK", 200, F_CHUNKED, true, false},
        [ANSWER_CLOSE_LATER] = {"HTTP/1.1 200 OK", 200, F_CLOSE, true, true},
        [ANSWER_101] = {"HTTP/1.1 101 Switching Protocols", 101, F_NONE, true, false},
        [ANSWER_500] = {"HTTP/1.1 500 Internal Server Error", 500, F_LENGTH, false, true},
        [ANSWER_SMALL_CHUNKS] = {"HTTP/1.1 200 OK", 200, F_CHUNKED, false, true},
    };
    struct bytes *to = &server->todo;
    if (!server->wire || server->end_wanted || people.record_n + 2 > RECORDS || bytes_length(to) > 1 << 20)
        return;
    server_mixes(server);
    if (answer == ANSWER_CONTINUE || answer == ANSWER_INTERIMS) {
        for (size_t i = 0; i < (answer == ANSWER_CONTINUE ? 1 : number % 12); i++)
            bytes_print(to, "HTTP/1.1 10%zu x\r\nA: b\r\n\r\n", i % 2 * 3);
    }
    size_t length = answer == ANSWER_NOTHING || kinds[answer].framing == F_NONE ? 0 : number;
    bool for_head = server->for_head;
    int framing = for_head ? F_NONE : kinds[answer].framing;
    unsigned record = record_new(server, kinds[answer].status, framing, framing == F_CLOSE || framing == F_CHUNKED ? SIZE_MAX : length);
    struct record *about = &people.records[record];
    bool head_closes = answer == ANSWER_BOTH || answer == ANSWER_10 || answer == ANSWER_LENGTH_CLOSE || answer == ANSWER_101;
    if (for_head ? head_closes : kinds[answer].closes && (length || answer != ANSWER_HALF))
        server_is_dirty_from(server, server_place(server));
    bytes_print(to, "%s\r\n", kinds[answer].line);
    put_mark(to, record);
    if (kinds[answer].framing == F_CHUNKED || answer == ANSWER_BOTH)
        bytes_print(to, "Transfer-Encoding: chunked\r\n");
    if (kinds[answer].framing == F_LENGTH)
        bytes_print(to, "Content-Length: %zu\r\n", length);
    if (answer == ANSWER_LENGTH_CLOSE)
        bytes_print(to, "Connection: close\r\n");
    if (answer == ANSWER_10_KEEP)
        bytes_print(to, "Connection: keep-alive\r\n");
    if (answer == ANSWER_NOMINATED)
        bytes_print(to, "Connection: x-secret\r\nX-Secret: a\r\nKeep-Alive: timeout=5\r\nTrailer: x\r\n");
    if (answer == ANSWER_LARGE_HEAD) {
        bytes_print(to, "X-Large: ");
        memset(bytes_append(to, NULL, number), 'l', number);
        bytes_print(to, "\r\n");
    }
    bytes_print(to, "\r\n");
    if (server->answers == 0)
        server->head_ends = kinds[answer].status == 404 ? server_place(server) : 0;
    if (!for_head) {
        switch (answer) {
        case ANSWER_CUT:
        case ANSWER_HALF:
            put_answer(to, record, 0, length / 2);
            break;
        case ANSWER_BAD_CHUNK:
            bytes_print(to, "5\r\n");
            put_answer(to, record, 0, 5);
            bytes_print(to, "\r\n-1\r\n");
            break;
        case ANSWER_CHUNKED:
        case ANSWER_TRAILERS:
            put_answer_chunks(to, record, length, length < 100 ? 10 : length / 2);
            bytes_print(to, "0\r\n%s\r\n", answer == ANSWER_TRAILERS ? "A: b\r\n" : "");
            break;
        case ANSWER_SMALL_CHUNKS:
            put_answer_chunks(to, record, length < 5000 ? length : 5000, 1 + number % 3);
            bytes_print(to, "0\r\n\r\n");
            break;
        case ANSWER_CHUNKED_CUT:
            put_answer_chunks(to, record, length, 100);
            break;
        default:
            if (framing != F_NONE)
                put_answer(to, record, 0, length);
        }
    }
    bool whole = kinds[answer].whole || (length == 0 && (answer == ANSWER_CUT || answer == ANSWER_HALF));
    if (whole)
        about->end = server_place(server);
    about->stop = server_place(server);
    about->needs_end = framing == F_CLOSE;
    if (server->answers++ == 0) {
        server->answered_at = whole || for_head ? server_place(server) : 0;
        server->refused = kinds[answer].status == 403;
    }
    if (for_head)
        about->end = server_place(server);
    if (answer == ANSWER_CLOSE || answer == ANSWER_CUT || answer == ANSWER_CHUNKED_CUT)
        server->end_wanted = true;
    if (answer == ANSWER_EXTRA) {
        server_is_dirty_from(server, server_place(server));
        bytes_print(to, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    if (answer == ANSWER_TWICE) {
        server_is_dirty_from(server, server_place(server));
        record = record_new(server, 200, framing, length);
        bytes_print(to, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n", length);
        put_mark(to, record);
        bytes_print(to, "\r\n");
        if (!for_head)
            put_answer(to, record, 0, length);
        people.records[record].stop = people.records[record].end = server_place(server);
        server->answers++;
    }
}

/* Arbitrary bytes; only MARK is not among them. */
static void server_says(struct server *server, const uint8_t *data, size_t length)
{
    if (!server->wire || server->end_wanted || bytes_length(&server->todo) > 1 << 20 || !length)
        return;
    server->wild = true;
    people.raw_answers = true;
    server_mixes(server);
    uint8_t *place = bytes_append(&server->todo, data, length);
    for (size_t i = 0; i < length; i++) {
        if (place[i] == MARK)
            place[i]--;
    }
}

static void guest_says(struct guest *guest, const uint8_t *data, size_t length)
{
    if (!guest->wire || bytes_length(&guest->todo) > 1 << 20)
        return;
    guest->wild = true;
    for (unsigned i = 0; i < people.token_n; i++) {
        if (people.tokens[i].guest == guest->serial)
            people.tokens[i].wild = true;
    }
    uint8_t *place = bytes_append(&guest->todo, data, length);
    for (size_t i = 0; i < length; i++) {
        if (place[i] == MARK || place[i] == '~')
            place[i]--;
    }
}

#endif
