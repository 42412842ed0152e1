/* Targets request, response and chunked: the pure parts of the core. Each input is parsed as a whole and in pieces, from
 * memory of exactly its size, so that AddressSanitizer sees a byte read too far. */
#ifndef FUZZ_HEADS_H
#define FUZZ_HEADS_H

#include "core.h"
#include "reader.h"

enum { CUTS = 12 };

/* Where the input is cut: all places before the last, rising. Returns how many there are. */
static unsigned read_cuts(struct input *input, size_t *cuts)
{
    unsigned n = next_byte(input) % (CUTS + 2);
    if (n > CUTS)
        return n; /* at every byte */
    size_t at = 0;
    for (unsigned i = 0; i < n; i++)
        cuts[i] = at += next_byte(input);
    return n;
}

static size_t next_cut(unsigned n, const size_t *cuts, size_t done, size_t length)
{
    if (n > CUTS)
        return done + 1;
    for (unsigned i = 0; i < n; i++) {
        if (cuts[i] > done && cuts[i] < length)
            return cuts[i];
    }
    return length;
}

typedef int parser(Head *head, const uint8_t *data, size_t length, size_t option);

/* option: max_head, then a bit for each of the other limits, which are small then. */
static HeadLimits head_limits(size_t option)
{
    return (HeadLimits){
        .head = option & 0xffff,
        .headers = option >> 16 & 1 ? 5 : VALUE(H1_MAX_HEADERS),
        .target = option >> 17 & 1 ? 20 : 4096,
    };
}

static int parse_request(Head *head, const uint8_t *data, size_t length, size_t option)
{
    HeadLimits limits = head_limits(option);
    return core_parse_request(head, data, length, &limits);
}

static int parse_response(Head *head, const uint8_t *data, size_t length, size_t to_head_request)
{
    return core_parse_response(head, data, length, to_head_request);
}

/* Parses as a whole into *head, then in pieces; both must read the same. */
static int parse_both(parser *parse, Head *head, struct input *input, size_t option, const uint8_t **data)
{
    size_t cuts[CUTS];
    unsigned n = read_cuts(input, cuts);
    size_t length = input->length - input->at, done = 0;
    const uint8_t *from = input->data + input->at;
    uint8_t *exact = malloc(length);
    Head again;
    int result = 0;
    memcpy(exact, from, length);
    memset(head, 0, sizeof *head);
    memset(&again, 0, sizeof again);
    int whole = parse(head, exact, length, option);
    while (result == 0 && done < length) {
        done = next_cut(n, cuts, done, length);
        uint8_t *piece = malloc(done);
        memcpy(piece, from, done);
        result = parse(&again, piece, done, option);
        free(piece);
    }
    if (result != whole)
        complain("as a whole %d, in pieces %d", whole, result);
    if (whole > 0 && memcmp(head, &again, sizeof again) != 0)
        complain("as a whole and in pieces different things were read");
    if (whole > 0 && ((size_t)whole > length || memcmp(exact + whole - 4, "\r\n\r\n", 4) != 0))
        complain("the head of %d bytes does not end at an empty line", whole);
    *data = exact;
    return whole;
}

/* Ambiguous framing is never accepted: RFC 9112 section 6.3, and names as WSGI folds them. What is accepted ends its lines
 * with CRLF alone. Reads the head anew. */
static const char *judge_head(const uint8_t *data, size_t length, bool request, unsigned *line_n)
{
    struct text rest = {data, length}, line;
    unsigned lengths = 0, codings = 0, hosts = 0;
    bool http11;
    *line_n = 0;
    if (request && length > 2 && data[0] == '\r' && data[1] == '\n')
        rest = (struct text){data + 2, length - 2}; /* RFC 9112 section 2.2 */
    if (!take_line(&rest, &line) || line.length < 12)
        return "a start line that is none";
    http11 = memcmp(request ? line.data + line.length - 8 : line.data, "HTTP/1.1", 8) == 0;
    while (take_line(&rest, &line)) {
        struct line found;
        if (line.length == 0) {
            if (rest.length)
                return "bytes behind the head";
            if (lengths > 1 || codings > 1 || (lengths && codings) || (codings && !http11))
                return "an ambiguous framing";
            return request && (hosts > 1 || (http11 && hosts != 1)) ? "not one Host" : NULL;
        }
        if (!split_line(line, &found))
            return "a header line that is none";
        lengths += text_is_folded(found.name, "content-length");
        codings += text_is_folded(found.name, "transfer-encoding");
        hosts += text_is(found.name, "host");
        if (text_is(found.name, "transfer-encoding") && !text_is(found.value, "chunked"))
            return "another transfer coding";
        if (text_is(found.name, "content-length") && text_number(found.value) < 0)
            return "a length that is none";
        ++*line_n;
    }
    return "a line that does not end with CRLF";
}

static void target_request(struct input *input)
{
    static const uint16_t limits[] = {8192, 256, 300, 1000, 4200, 14000, 65535, 8192};
    static const uint8_t addresses[2][16] = {{[10] = 255, [11] = 255, [12] = 10, [15] = 5}, {0xfe, 0x80, [15] = 9}};
    uint8_t options = next_byte(input);
    const uint8_t *data;
    Head head;
    unsigned line_n;
    uint8_t more = next_byte(input);
    size_t option = limits[options & 7] | (size_t)(more & 3) << 16;
    bool sign_next = more & 4;
    HeadLimits bounds = head_limits(option);
    int length = parse_both(parse_request, &head, input, option, &data);
    if (length > 0) {
        const char *wrong = judge_head(data, (size_t)length, true, &line_n);
        if (wrong)
            complain("accepted: %s", wrong);
        if (line_n != head.header_n || (size_t)length > bounds.head || line_n > bounds.headers ||
            head.target_length > bounds.target)
            complain("%u lines, of which %u were read, in %d bytes", line_n, head.header_n, length);
        Identity *identity = core_identity(addresses[options >> 3 & 1], "instance", 8, "project", 7, "secret", "next");
        /* As ex_begin decides it. */
        bool get = head.method_length == 3 && memcmp(data + head.method_at, "GET", 3) == 0;
        bool for_head = head.method_length == 4 && memcmp(data + head.method_at, "HEAD", 4) == 0;
        bool repeatable = (get || for_head) && head.framing == VALUE(H1_FRAMING_NONE);
        int64_t content_length = repeatable ? -1 : head.content_length > 0 ? head.content_length : 0;
        size_t capacity = (size_t)length + 2048;
        if (options & 16)
            capacity = (size_t)length / (1 + (options >> 5)); /* too small, often */
        Out out = {.data = malloc(capacity), .capacity = capacity};
        CORE(hd_request)(&out, &head, data, identity, sign_next, (const uint8_t *)"nova:8775", 9, content_length);
        if (out.length > out.capacity || (out.overflow && !(options & 16)))
            complain("%zu bytes of %zu", out.length, out.capacity);
        if (!out.overflow) {
            struct sent_head sent;
            wrong = read_sent_head(out.data, out.length, &sent);
            if (wrong)
                complain("the head for Nova: %s", wrong);
            if (!text_is(sent.host, "nova:8775") || !text_is(sent.instance, "instance") || !text_is(sent.project, "project") ||
                !text_is(sent.address, options & 8 ? "fe80::9" : "10.0.0.5") || sent.signature.length != 64)
                complain("the head for Nova has other values than ours");
            const uint8_t *signature = sign_next ? identity->next_signature : identity->data + identity->length - 66;
            if (memcmp(sent.signature.data, signature, 64) != 0)
                complain("the head for Nova is signed with the other secret");
            if (sent.content_length != content_length || sent.method.length != head.method_length)
                complain("the head for Nova has another length or method");
        }
        free(out.data);
        kernel_free(identity);
    }
    free((void *)(uintptr_t)data);
}

static void target_response(struct input *input)
{
    uint8_t options = next_byte(input);
    bool to_head_request = options & 1, http11 = options & 2, keep_alive = options & 4;
    const uint8_t *data;
    Head head;
    unsigned line_n;
    int length = parse_both(parse_response, &head, input, to_head_request, &data);
    if (length > 0) {
        const char *wrong = judge_head(data, (size_t)length, false, &line_n);
        if (wrong)
            complain("accepted: %s", wrong);
        if (line_n != head.header_n)
            complain("%u lines, of which %u were read", line_n, head.header_n);
        uint8_t framing = head.framing;
        if (framing == VALUE(H1_FRAMING_CHUNKED) || framing == VALUE(H1_FRAMING_CLOSE))
            framing = http11 ? VALUE(H1_FRAMING_CHUNKED) : VALUE(H1_FRAMING_CLOSE);
        size_t capacity = (size_t)length + VALUE(HD_RESPONSE_GROWTH);
        Out out = {.data = malloc(capacity), .capacity = capacity};
        CORE(hd_response)(&out, &head, data, framing, http11, keep_alive);
        if (out.overflow || out.length > capacity)
            complain("the head for the guest grew by more than HD_RESPONSE_GROWTH");
        if (head.status >= 200) {
            struct answer_head answer;
            wrong = read_answer_head(out.data, out.length, &answer);
            if (wrong)
                complain("the head for the guest: %s", wrong);
            if (answer.status != head.status || answer.chunked != (framing == VALUE(H1_FRAMING_CHUNKED)))
                complain("the head for the guest has another status or framing");
            if (framing == VALUE(H1_FRAMING_LENGTH) && answer.content_length != head.content_length)
                complain("the head for the guest has another length");
            if (framing == VALUE(H1_FRAMING_CLOSE) && answer.content_length >= 0)
                complain("the head for the guest has a length that nobody knows");
            if (answer.close != !keep_alive || (answer.keeps && http11))
                complain("the head for the guest says something else about the connection");
            /* Headers that Connection names are for us alone: RFC 9110 section 7.6.1. */
            struct text rest = {data, (size_t)length}, line;
            struct line found, other;
            take_line(&rest, &line);
            while (take_line(&rest, &line) && line.length) {
                struct text all = {out.data, out.length};
                split_line(line, &found);
                if (!text_is(found.name, "connection"))
                    continue;
                take_line(&all, &line);
                while (take_line(&all, &line) && line.length) {
                    split_line(line, &other);
                    if (list_has(found.value, other.name) && !text_is(other.name, "content-length") &&
                        !text_is(other.name, "transfer-encoding") && !text_is(other.name, "connection"))
                        complain("a header that Connection names went on");
                }
            }
        }
        free(out.data);
    }
    free((void *)(uintptr_t)data);
}

/* Chunked coding, decoded simply: a whole message at once. Returns as ck_decode. */
static int decode_simply(const uint8_t *data, size_t length, uint8_t *content, size_t *content_length, size_t *used)
{
    size_t at = 0, extra = 0;
    bool last = false;
    *content_length = 0;
    *used = length;
    while (!last) {
        uint64_t size = 0;
        unsigned digits = 0;
        for (; at < length && strchr("0123456789abcdefABCDEF", data[at]) && data[at]; at++, digits++) {
            size = size * 16 + (uint64_t)(data[at] <= '9' ? data[at] - '0' : (data[at] | 32) - 'a' + 10);
            if (digits == VALUE(CK_MAX_DIGITS))
                return VALUE(CK_BAD);
        }
        if (at == length)
            return VALUE(CK_MORE);
        if (digits == 0 || (data[at] != ';' && data[at] != '\r'))
            return VALUE(CK_BAD);
        if (data[at] == ';') {
            for (at++; at < length && data[at] != '\r'; at++) {
                if (++extra > VALUE(CK_MAX_EXTRA) || (data[at] < 32 && data[at] != '\t') || data[at] == 127)
                    return VALUE(CK_BAD);
            }
            if (at == length)
                return VALUE(CK_MORE);
            if (++extra > VALUE(CK_MAX_EXTRA))
                return VALUE(CK_BAD);
        }
        if (++at == length)
            return VALUE(CK_MORE);
        if (data[at++] != '\n')
            return VALUE(CK_BAD);
        last = size == 0;
        for (; size; size--, at++) {
            if (at == length)
                return VALUE(CK_MORE);
            content[(*content_length)++] = data[at];
        }
        for (unsigned i = 0; !last && i < 2; i++, at++) {
            if (at == length)
                return VALUE(CK_MORE);
            if (data[at] != "\r\n"[i])
                return VALUE(CK_BAD);
        }
    }
    for (;;) {
        size_t start = at;
        bool colon = false;
        for (; at < length && data[at] != '\r'; at++) {
            if (++extra > VALUE(CK_MAX_EXTRA))
                return VALUE(CK_BAD);
            if (colon ? (data[at] < 32 && data[at] != '\t') || data[at] == 127 : data[at] != ':' && !is_token(data[at]))
                return VALUE(CK_BAD);
            if (data[at] == ':') {
                if (at == start)
                    return VALUE(CK_BAD);
                colon = true;
            }
        }
        if (at == length)
            return VALUE(CK_MORE);
        if (++extra > VALUE(CK_MAX_EXTRA) || (at > start && !colon))
            return VALUE(CK_BAD);
        bool empty = at == start;
        if (++at == length)
            return VALUE(CK_MORE);
        if (data[at++] != '\n')
            return VALUE(CK_BAD);
        if (empty) {
            *used = at;
            return VALUE(CK_DONE);
        }
    }
}

static void target_chunked(struct input *input)
{
    size_t cuts[CUTS];
    unsigned n = read_cuts(input, cuts);
    size_t length = input->length - input->at, done = 0;
    const uint8_t *from = input->data + input->at;
    uint8_t *simple = malloc(length), *content = malloc(length);
    size_t simple_length, simple_used, content_length = 0, used_in_all = 0;
    int wanted = decode_simply(from, length, simple, &simple_length, &simple_used);
    int state = VALUE(CK_MORE);
    Chunked chunked;
    memset(&chunked, 0, sizeof chunked);
    while (state == VALUE(CK_MORE) && done < length) {
        size_t next = next_cut(n, cuts, done, length), piece_length = next - done, decoded, used;
        uint8_t *piece = malloc(piece_length);
        memcpy(piece, from + done, piece_length);
        state = CORE(ck_decode)(&chunked, piece, piece_length, &decoded, &used);
        if (used > piece_length || decoded > used || (state == VALUE(CK_MORE) && used != piece_length))
            complain("of %zu bytes %zu were used, %zu are content", piece_length, used, decoded);
        memcpy(content + content_length, piece, decoded);
        content_length += decoded;
        used_in_all += used;
        done = next;
        free(piece);
    }
    if (state != wanted)
        complain("decoded simply %d, by the core %d", wanted, state);
    if (state == VALUE(CK_DONE) && used_in_all != simple_used)
        complain("the message ends at %zu, not at %zu", simple_used, used_in_all);
    if (state >= 0 && (content_length != simple_length || memcmp(content, simple, content_length) != 0))
        complain("%zu bytes of content, not %zu, or others", content_length, simple_length);
    free(simple);
    free(content);
}

#endif
