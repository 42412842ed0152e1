/* Reads again what the core wrote, with code that shares nothing with it: heads for Nova, heads for guests. Whatever they
 * return other than NULL says which rule is broken. */
#ifndef FUZZ_READER_H
#define FUZZ_READER_H

#include "common.h"
#include <strings.h>

struct text {
    const uint8_t *data;
    size_t length;
};

struct line {
    struct text name, value;
};

static bool text_is(struct text text, const char *other)
{
    return text.length == strlen(other) && strncasecmp((const char *)text.data, other, text.length) == 0;
}

/* What WSGI (PEP 3333) cannot tell apart: "_" for "-". */
static bool text_is_folded(struct text text, const char *other)
{
    if (text.length != strlen(other))
        return false;
    for (size_t i = 0; i < text.length; i++) {
        int c = text.data[i] == '_' ? '-' : text.data[i];
        if (c >= 'A' && c <= 'Z')
            c += 32;
        if (c != other[i])
            return false;
    }
    return true;
}

static bool is_token(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && c < 128 && strchr("!#$%&'*+-.^_`|~", c));
}

/* A number in decimal digits only, or -1. */
static int64_t text_number(struct text text)
{
    int64_t number = 0;
    if (text.length == 0 || text.length > 18)
        return -1;
    for (size_t i = 0; i < text.length; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -1;
        number = number * 10 + text.data[i] - '0';
    }
    return number;
}

/* Whether a list (RFC 9110 section 5.6.1) names this. */
static bool list_has(struct text list, struct text name)
{
    size_t at = 0;
    while (at <= list.length) {
        size_t end = at;
        while (end < list.length && list.data[end] != ',')
            end++;
        size_t start = at, stop = end;
        while (start < stop && (list.data[start] == ' ' || list.data[start] == '\t'))
            start++;
        while (stop > start && (list.data[stop - 1] == ' ' || list.data[stop - 1] == '\t'))
            stop--;
        if (stop - start == name.length && strncasecmp((const char *)list.data + start, (const char *)name.data, name.length) == 0)
            return true;
        at = end + 1;
    }
    return false;
}

/* Takes bytes to a head, up to the end of a line; returns how many. */
static size_t head_grows(struct bytes *head, const uint8_t *data, size_t length)
{
    const uint8_t *end = memchr(data, '\n', length);
    size_t n = end ? (size_t)(end - data) + 1 : length;
    bytes_append(head, data, n);
    return n;
}

/* Whether it ends with an empty line, or has grown beyond all reason. */
static bool head_is_complete(const struct bytes *head)
{
    size_t length = bytes_length(head);
    return length > 100000 || (length >= 4 && memcmp(head->data + head->end - 4, "\r\n\r\n", 4) == 0);
}

/* Takes a line off *rest; false when it does not end with CRLF, or holds a CR, LF or NUL. */
static bool take_line(struct text *rest, struct text *line)
{
    for (size_t i = 0; i < rest->length; i++) {
        uint8_t c = rest->data[i];
        if (c == '\r' && i + 1 < rest->length && rest->data[i + 1] == '\n') {
            *line = (struct text){rest->data, i};
            rest->data += i + 2;
            rest->length -= i + 2;
            return true;
        }
        if (c == '\r' || c == '\n' || c == 0)
            return false;
    }
    return false;
}

/* name ":" OWS value OWS */
static bool split_line(struct text line, struct line *found)
{
    size_t i = 0;
    while (i < line.length && is_token(line.data[i]))
        i++;
    if (i == 0 || i == line.length || line.data[i] != ':')
        return false;
    found->name = (struct text){line.data, i};
    size_t start = i + 1, end = line.length;
    while (start < end && (line.data[start] == ' ' || line.data[start] == '\t'))
        start++;
    while (end > start && (line.data[end - 1] == ' ' || line.data[end - 1] == '\t'))
        end--;
    found->value = (struct text){line.data + start, end - start};
    for (i = start; i < end; i++) {
        if ((line.data[i] < 32 && line.data[i] != '\t') || line.data[i] == 127)
            return false;
    }
    return true;
}

/* A head that the core sent to Nova. */
struct sent_head {
    struct text method, target, host, address, instance, project, signature;
    int64_t content_length; /* -1: none */
};

static const char *read_sent_head(const uint8_t *data, size_t length, struct sent_head *head)
{
    static const char *const passed[] = {"Accept", "Accept-Encoding", "Accept-Language", "Content-Type",
                                         "If-Modified-Since", "If-None-Match", "Range", "User-Agent"};
    struct {
        const char *name;
        struct text *place;
        unsigned n;
    } once[] = {
        {"Host", &head->host, 0},
        {"X-Forwarded-For", &head->address, 0},
        {"X-Instance-ID", &head->instance, 0},
        {"X-Tenant-ID", &head->project, 0},
        {"X-Instance-ID-Signature", &head->signature, 0},
    };
    enum { ONCE = sizeof once / sizeof *once };
    struct text rest = {data, length}, line;
    memset(head, 0, sizeof *head);
    head->content_length = -1;
    if (!take_line(&rest, &line))
        return "the request line does not end";
    size_t i = 0;
    while (i < line.length && is_token(line.data[i]))
        i++;
    head->method = (struct text){line.data, i};
    if (i == 0 || i == line.length || line.data[i] != ' ')
        return "no method";
    size_t start = ++i;
    while (i < line.length && line.data[i] > 32 && line.data[i] < 127)
        i++;
    head->target = (struct text){line.data + start, i - start};
    if (head->target.length == 0 || head->target.data[0] != '/')
        return "a target that does not begin with a slash";
    if (line.length - i != 9 || memcmp(line.data + i, " HTTP/1.1", 9) != 0)
        return "no HTTP/1.1 at the end of the request line";
    while (take_line(&rest, &line)) {
        struct line found;
        bool known = false;
        if (line.length == 0) {
            if (rest.length)
                return "bytes behind the head";
            for (unsigned k = 0; k < ONCE; k++) {
                if (once[k].n != 1)
                    return once[k].name;
            }
            return NULL;
        }
        if (!split_line(line, &found))
            return "a header line that is none";
        for (unsigned k = 0; k < ONCE; k++) {
            if (text_is(found.name, once[k].name)) {
                *once[k].place = found.value;
                once[k].n++;
                known = true;
            }
        }
        for (unsigned k = 0; k < sizeof passed / sizeof *passed; k++)
            known |= text_is(found.name, passed[k]);
        if (text_is(found.name, "Content-Length")) {
            if (head->content_length >= 0)
                return "Content-Length twice";
            head->content_length = text_number(found.value);
            if (head->content_length < 0)
                return "Content-Length is no number";
            known = true;
        }
        if (!known)
            return "a header that is not on the allow-list";
    }
    return "a line that does not end with CRLF";
}

/* A head that the core sent to a guest. */
struct answer_head {
    int status;
    bool chunked, close, keeps;
    int64_t content_length; /* -1: none */
    struct text mark;       /* X-Mark */
    bool has_date, has_retry_after;
    unsigned line_n;
};

static const char *read_answer_head(const uint8_t *data, size_t length, struct answer_head *head)
{
    struct text rest = {data, length}, line;
    memset(head, 0, sizeof *head);
    head->content_length = -1;
    if (!take_line(&rest, &line) || line.length < 13 || memcmp(line.data, "HTTP/1.1 ", 9) != 0 || line.data[12] != ' ')
        return "no status line";
    for (int i = 9; i < 12; i++) {
        if (line.data[i] < '0' || line.data[i] > '9')
            return "no status";
        head->status = head->status * 10 + line.data[i] - '0';
    }
    while (take_line(&rest, &line)) {
        struct line found;
        if (line.length == 0)
            return rest.length ? "bytes behind the head" : head->chunked && head->content_length >= 0 ? "two framings" : NULL;
        head->line_n++;
        if (!split_line(line, &found))
            return "a header line that is none";
        if (text_is(found.name, "Content-Length")) {
            if (head->content_length >= 0)
                return "Content-Length twice";
            head->content_length = text_number(found.value);
            if (head->content_length < 0)
                return "Content-Length is no number";
        } else if (text_is(found.name, "Transfer-Encoding")) {
            if (head->chunked || !text_is(found.value, "chunked"))
                return "Transfer-Encoding other than chunked, once";
            head->chunked = true;
        } else if (text_is(found.name, "Connection")) {
            if (head->close || head->keeps)
                return "Connection twice";
            head->close = text_is(found.value, "close");
            head->keeps = text_is(found.value, "keep-alive");
            if (!head->close && !head->keeps)
                return "Connection names something else";
        } else if (text_is(found.name, "Keep-Alive") || text_is(found.name, "TE") || text_is(found.name, "Trailer") ||
                   text_is(found.name, "Upgrade") || text_is(found.name, "Proxy-Connection")) {
            return "a hop-by-hop header";
        } else if (text_is(found.name, "X-Mark")) {
            head->mark = found.value;
        } else if (text_is(found.name, "Date")) {
            head->has_date = true;
        } else if (text_is(found.name, "Retry-After")) {
            head->has_retry_after = true;
        }
    }
    return "a line that does not end with CRLF";
}

#endif
