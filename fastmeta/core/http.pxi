# HTTP/1 heads: parses requests and responses. Prefix h1_, shared with names.pxi. Pure functions over (pointer,
# length); no allocation, no I/O.
#
# A Head borrows nothing and owns nothing: it keeps offsets into the buffer that it was parsed from, so the buffer may
# move, but its bytes must stay. Parsing is resumable at line level: no byte is looked at twice for its line end, and no
# line is parsed twice. The parsers return the head's length (> 0), 0 when more bytes are needed, or -(HTTP status).

cdef enum:
    H1_MAX_HEADERS = 100       # then 431, or less by setting; Neutron's guests send fewer than 20
    H1_MAX_METHOD = 32         # then 400

cdef enum:
    H1_FRAMING_NONE = 0        # no content
    H1_FRAMING_LENGTH = 1
    H1_FRAMING_CHUNKED = 2
    H1_FRAMING_CLOSE = 3       # until the connection closes: answers only


cdef struct Header:
    uint16_t name_at
    uint16_t name_length
    uint16_t value_at
    uint16_t value_length
    uint8_t known


cdef struct Head:
    # Where parsing is. All zero: nothing seen yet.
    uint32_t scanned           # up to here there is no line end that has not been used
    uint32_t line_at           # where the present line starts
    uint32_t line_number       # of the present line
    # The start line.
    uint16_t method_at
    uint16_t method_length
    uint16_t target_at         # the path and query: of an absolute target only that part (may be empty: "/")
    uint16_t target_length
    uint16_t status_at
    uint16_t reason_at
    uint16_t reason_length
    uint16_t status
    uint16_t host_n
    bint http11
    # What the headers said.
    bint has_length
    bint has_coding
    bint chunked
    bint says_close
    bint says_keep_alive
    bint nominates             # Connection may name headers that are hop-by-hop
    bint expects_continue
    bint keep_alive            # what version and Connection together mean: RFC 9112 section 9.3
    uint8_t framing
    int64_t content_length     # -1: none given
    uint16_t header_n
    Header headers[H1_MAX_HEADERS]


cdef struct HeadLimits:
    size_t head                # bytes, with the empty line; <= 65,535
    uint16_t headers           # <= H1_MAX_HEADERS
    uint16_t target            # bytes


cdef inline int h1_header(Head *head, const uint8_t *data, size_t at, size_t end, size_t all_length,
                          int most) noexcept nogil:
    """One header line, data[at:end] without its CRLF; all_length: of what may be read of data. Returns 0, or -(status),
    431 if there are `most` already: RFC 9112 section 5."""
    cdef size_t i = by_skip_name(data, at, end, all_length)
    cdef size_t value_at
    cdef size_t value_end = end
    cdef uint8_t kind
    cdef uint8_t kinds = 0
    cdef int known
    cdef Header *header
    cdef const uint8_t *name = data + at
    cdef size_t length
    while i < end and data[i] != 58:
        kind = by_class[data[i]]
        if not kind & BY_TOKEN:
            break
        kinds |= kind
        i += 1
    # No name, white space before the colon or at the start of the line (obs-fold): all refused by the same test.
    if i == at or i == end or data[i] != 58:
        return -400
    length = i - at
    i += 1
    while i < end and (data[i] == 32 or data[i] == 9):
        i += 1
    value_at = i
    if by_skip_value(data, i, end, all_length) < end:
        return -400
    while value_end > value_at and (data[value_end - 1] == 32 or data[value_end - 1] == 9):
        value_end -= 1
    if by_unlikely(head.header_n >= most):
        return -431
    known = h1_known(name, length)
    if by_unlikely(kinds & BY_UNDERSCORE):
        # A server behind a WSGI gateway cannot tell this name from the real one (PEP 3333): ambiguous framing.
        if (length == 14 and by_is_folded(name, b"content-length", 14)) or (
                length == 17 and by_is_folded(name, b"transfer-encoding", 17)):
            return -400
    header = &head.headers[head.header_n]
    header.name_at = <uint16_t> at
    header.name_length = <uint16_t> length
    header.value_at = <uint16_t> value_at
    header.value_length = <uint16_t> (value_end - value_at)
    header.known = <uint8_t> known
    head.header_n += 1
    if known == H1_OTHER or known >= H1_PASS:
        return 0
    return h1_meaning(head, known, data + value_at, value_end - value_at)


cdef int h1_meaning(Head *head, int known, const uint8_t *value, size_t length) noexcept nogil:
    """Takes up what a header of our own says. Returns 0, or -(status)."""
    if known == H1_HOST:
        head.host_n += 1
    elif known == H1_CONTENT_LENGTH:
        # RFC 9112 section 6.3: a list of equal values might be accepted; we accept one value, once.
        if head.has_length:
            return -400
        head.has_length = True
        head.content_length = by_decimal(value, length)
        if head.content_length < 0:
            return -400
    elif known == H1_TRANSFER_ENCODING:
        if head.has_coding or length == 0:
            return -400
        head.has_coding = True
        # RFC 9112 section 6.1: a coding that is not understood is answered with 501.
        if not (length == 7 and by_is(value, b"chunked", 7)):
            return -501
        head.chunked = True
    elif known == H1_CONNECTION:
        if length == 10 and by_is(value, b"keep-alive", 10):
            head.says_keep_alive = True
        elif length == 5 and by_is(value, b"close", 5):
            head.says_close = True
        else:
            head.nominates = True
            if by_has_token(value, length, <const uint8_t *> b"close", 5):
                head.says_close = True
            if by_has_token(value, length, <const uint8_t *> b"keep-alive", 10):
                head.says_keep_alive = True
    elif known == H1_EXPECT:
        if length == 12 and by_is(value, b"100-continue", 12):
            head.expects_continue = True
    return 0


cdef int h1_version(const uint8_t *text) noexcept nogil:
    """Eight bytes: 11, 10, or -400 for all others. RFC 9112 section 2.3: case-sensitive."""
    if memcmp(text, b"HTTP/1.1", 8) == 0:
        return 11
    if memcmp(text, b"HTTP/1.0", 8) == 0:
        return 10
    return -400


cdef int h1_request_line(Head *head, const uint8_t *data, size_t at, size_t end, size_t all_length,
                         size_t longest) noexcept nogil:
    """method SP request-target SP HTTP-version, single spaces: RFC 9112 section 3. Returns 0, or -(status), 414 for a
    target of more than `longest` bytes. all_length: as for h1_header."""
    cdef size_t i = at
    cdef size_t target_at
    cdef size_t target_end
    cdef int version
    while i < end and by_class[data[i]] & BY_TOKEN:
        i += 1
    if i == at or i == end or data[i] != 32 or i - at > H1_MAX_METHOD:
        return -400
    # Its target is an authority (RFC 9112 section 3.2.3), and who knows it ends the request and the answer at their
    # heads (section 6.3): with any other target the framing depends on the reader. So does the case of its letters.
    if by_unlikely(i - at == 7 and by_is(data + at, b"connect", 7)):
        return -400
    head.method_at = <uint16_t> at
    head.method_length = <uint16_t> (i - at)
    i += 1
    target_at = i
    i = by_skip_target(data, i, end, all_length)
    if i == target_at or i == end or data[i] != 32:
        return -400
    target_end = i
    if end - i - 1 != 8:
        return -400
    version = h1_version(data + i + 1)
    if version < 0:
        return version
    head.http11 = version == 11
    if target_end - target_at > longest:
        return -414
    if data[target_at] != 47:
        # RFC 9112 section 3.2.2: a server accepts absolute-form; its authority takes the place of Host, which we set
        # ourselves. "*" and authority-form (OPTIONS, CONNECT) name nothing that a metadata service has.
        if target_end - target_at < 8 or not by_is(data + target_at, b"http", 4) or (
                memcmp(data + target_at + 4, b"://", 3) != 0):
            return -400
        target_at += 7
        i = target_at
        while i < target_end and data[i] != 47 and data[i] != 63:
            i += 1
        if i == target_at:
            return -400
        target_at = i
    head.target_at = <uint16_t> target_at
    head.target_length = <uint16_t> (target_end - target_at)
    return 0


cdef int h1_request_end(Head *head) noexcept nogil:
    """After the last header: what the framing is. Returns 0, or -(status)."""
    # RFC 9112 section 3.2: exactly one Host in HTTP/1.1. Its value is not looked at: guests send zone ids and worse.
    if head.host_n > 1 or (head.http11 and head.host_n == 0):
        return -400
    if head.chunked:
        # RFC 9112 section 6.1: both, or a transfer coding in HTTP/1.0, is an attempt at smuggling.
        if head.has_length or not head.http11:
            return -400
        head.framing = H1_FRAMING_CHUNKED
    elif head.has_length and head.content_length > 0:
        head.framing = H1_FRAMING_LENGTH
    else:
        head.framing = H1_FRAMING_NONE
    if head.http11:
        head.keep_alive = not head.says_close
    else:
        head.keep_alive = head.says_keep_alive and not head.says_close
        head.expects_continue = False      # RFC 9110 section 10.1.1
    return 0


cdef int h1_parse_request(Head *head, const uint8_t *data, size_t length, const HeadLimits *limits) noexcept nogil:
    """Parses as much of a request's head as there is."""
    cdef size_t at
    cdef int status
    while True:
        at = by_find_line_end(data, head.scanned, length)
        if at >= limits.head:
            return -414 if head.line_number == 0 else -431
        head.scanned = <uint32_t> at
        if at == length:
            return 0
        head.scanned += 1
        # RFC 9112 section 2.2 lets a recipient accept a bare LF; we are strict, as peers disagree about it.
        if at == head.line_at or data[at - 1] != 13:
            return -400
        if by_likely(at - 1 > head.line_at):
            if by_likely(head.line_number > 0):
                status = h1_header(head, data, head.line_at, at - 1, length, limits.headers)
            else:
                head.content_length = -1
                status = h1_request_line(head, data, head.line_at, at - 1, length, limits.target)
            if status < 0:
                return status
            head.line_number += 1
        elif head.line_number > 0:
            status = h1_request_end(head)
            return status if status < 0 else <int> (at + 1)
        elif head.line_at > 0:
            return -400
        # An empty line before the request line is skipped, once: RFC 9112 section 2.2.
        head.line_at = <uint32_t> (at + 1)


cdef int h1_status_line(Head *head, const uint8_t *data, size_t at, size_t end) noexcept nogil:
    """HTTP-version SP 3DIGIT [SP [reason]]: RFC 9112 section 4. Returns 0 or -502."""
    cdef size_t i
    cdef int version
    if end - at < 12:
        return -502
    version = h1_version(data + at)
    if version < 0 or data[at + 8] != 32:
        return -502
    head.http11 = version == 11
    head.status = 0
    head.status_at = <uint16_t> (at + 9)
    for i in range(at + 9, at + 12):
        if data[i] < 48 or data[i] > 57:
            return -502
        head.status = <uint16_t> (head.status * 10 + (data[i] - 48))
    if head.status < 100 or head.status > 599:
        return -502
    i = at + 12
    if i < end:
        if data[i] != 32:
            return -502
        i += 1
    head.reason_at = <uint16_t> i
    head.reason_length = <uint16_t> (end - i)
    return 0 if by_skip_value(data, i, end, end) == end else -502


cdef int h1_response_end(Head *head, bint to_head_request) noexcept nogil:
    """After the last header: what the framing is, RFC 9112 section 6.3. Returns 0 or -502."""
    # 101: we never ask for an upgrade.
    if (head.has_coding and (head.has_length or not head.http11)) or head.status == 101:
        return -502
    # These have no content; RFC 9110 section 8.6 and RFC 9112 section 6.1 forbid them to speak of any, and readers
    # disagree on whether it follows when they do.
    if (head.status < 200 or head.status == 204) and (head.has_coding or head.content_length > 0):
        return -502
    if to_head_request or head.status < 200 or head.status == 204 or head.status == 304:
        head.framing = H1_FRAMING_NONE
    elif head.chunked:
        head.framing = H1_FRAMING_CHUNKED
    elif head.has_length:
        head.framing = <uint8_t> (H1_FRAMING_LENGTH if head.content_length > 0 else H1_FRAMING_NONE)
    else:
        head.framing = H1_FRAMING_CLOSE
    head.keep_alive = head.framing != H1_FRAMING_CLOSE and not head.says_close and (
        head.http11 or head.says_keep_alive)
    return 0


cdef int h1_parse_response(Head *head, const uint8_t *data, size_t length, size_t max_head,
                           bint to_head_request) noexcept nogil:
    """As h1_parse_request, for an answer; -502 is the only status that refuses. As strict: an upstream that frames its
    answers ambiguously could desynchronise a connection that several tenants use."""
    cdef size_t at
    cdef int status
    while True:
        at = by_find_line_end(data, head.scanned, length)
        if at >= max_head:
            return -502
        head.scanned = <uint32_t> at
        if at == length:
            return 0
        head.scanned += 1
        if at == head.line_at or data[at - 1] != 13:
            return -502
        if by_likely(at - 1 > head.line_at):
            if by_likely(head.line_number > 0):
                status = h1_header(head, data, head.line_at, at - 1, length, H1_MAX_HEADERS)
            else:
                head.content_length = -1
                status = h1_status_line(head, data, head.line_at, at - 1)
            if status < 0:
                return -502
            head.line_number += 1
        elif head.line_number > 0:
            status = h1_response_end(head, to_head_request)
            return status if status < 0 else <int> (at + 1)
        else:
            return -502
        head.line_at = <uint32_t> (at + 1)
