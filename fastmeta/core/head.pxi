# The heads that we send: to Nova (built new), to the guest (framing is ours), and answers of our own. Prefix hd_.
# Everything is written through an Out, whose memory belongs to the caller.

cdef enum:
    HD_MAX_ID = 255            # bytes of an instance's or project's id
    HD_MAX_BLOCK = 1024        # an identity's header lines: two ids, a signature, an address, the names


cdef struct Identity:
    # What a guest is, as header lines that are ready to be copied. One malloc; the owner is the identity table's entry,
    # and before that the mailbox message.
    uint16_t length
    uint16_t instance_at
    uint16_t instance_length
    bint signed_twice          # next_signature is that of the next secret
    uint8_t next_signature[SG_HEX_LENGTH]
    uint8_t data[HD_MAX_BLOCK]  # the signature's line is the last


cdef inline bint hd_is_same(const Identity *one, const Identity *other) noexcept nogil:
    """Whether they are of the same instance and project, signed with the same secret."""
    return one.length == other.length and memcmp(one.data, other.data, one.length) == 0


cdef inline bint hd_is_mapped(const uint8_t *address) noexcept nogil:
    """Whether these 16 bytes are an IPv4 address, ::ffff:a.b.c.d."""
    cdef uint64_t zeros
    memcpy(&zeros, address, 8)
    return zeros == 0 and address[8] == 0 and address[9] == 0 and address[10] == 255 and address[11] == 255


cdef void hd_put_address(Out *out, const uint8_t *address) noexcept nogil:
    cdef char text[INET6_ADDRSTRLEN]
    cdef size_t n = 0
    if hd_is_mapped(address):
        inet_ntop(AF_INET, address + 12, text, INET6_ADDRSTRLEN)
    else:
        inet_ntop(AF_INET6, address, text, INET6_ADDRSTRLEN)
    while text[n] != 0:
        n += 1
    by_put(out, text, n)


cdef bint hd_is_id(const uint8_t *text, size_t length) noexcept nogil:
    """An id that may stand in a header: 1 to HD_MAX_ID visible characters. Anything else could split a head."""
    cdef size_t i
    if length == 0 or length > HD_MAX_ID:
        return False
    for i in range(length):
        if text[i] <= 32 or text[i] >= 127:
            return False
    return True


cdef int hd_identity(Identity *identity, const uint8_t *address, const uint8_t *instance, size_t instance_length,
                     const uint8_t *project, size_t project_length, const uint8_t *secret, size_t secret_length,
                     const uint8_t *next_secret, size_t next_secret_length) noexcept nogil:
    """Fills identity. next_secret_length: 0 without one. Returns 0, or -1 when an id cannot be a header's value or
    cannot be signed."""
    cdef Out out
    cdef uint8_t signature[SG_HEX_LENGTH]
    if not hd_is_id(instance, instance_length) or not hd_is_id(project, project_length):
        return -1
    if sg_sign(secret, secret_length, instance, instance_length, signature) < 0:
        return -1
    identity.signed_twice = next_secret_length > 0
    if identity.signed_twice and sg_sign(next_secret, next_secret_length, instance, instance_length,
                                         identity.next_signature) < 0:
        return -1
    out.data = identity.data
    out.length = 0
    out.capacity = HD_MAX_BLOCK
    out.overflow = False
    by_text(&out, b"X-Forwarded-For: ")
    hd_put_address(&out, address)
    by_text(&out, b"\r\nX-Instance-ID: ")
    identity.instance_at = <uint16_t> out.length
    identity.instance_length = <uint16_t> instance_length
    by_put(&out, instance, instance_length)
    by_text(&out, b"\r\nX-Tenant-ID: ")
    by_put(&out, project, project_length)
    by_text(&out, b"\r\nX-Instance-ID-Signature: ")
    by_put(&out, signature, SG_HEX_LENGTH)
    by_text(&out, b"\r\n")
    identity.length = <uint16_t> out.length
    return -1 if out.overflow else 0


cdef void hd_put_passed(Out *out, uint8_t known, const uint8_t *value, size_t length) noexcept nogil:
    """A header of the guest that is on the allow-list, under our own spelling of its name."""
    if known == H1_ACCEPT:
        by_text(out, b"Accept: ")
    elif known == H1_ACCEPT_ENCODING:
        by_text(out, b"Accept-Encoding: ")
    elif known == H1_ACCEPT_LANGUAGE:
        by_text(out, b"Accept-Language: ")
    elif known == H1_CONTENT_TYPE:
        by_text(out, b"Content-Type: ")
    elif known == H1_IF_MODIFIED_SINCE:
        by_text(out, b"If-Modified-Since: ")
    elif known == H1_IF_NONE_MATCH:
        by_text(out, b"If-None-Match: ")
    elif known == H1_RANGE:
        by_text(out, b"Range: ")
    elif known == H1_USER_AGENT:
        by_text(out, b"User-Agent: ")
    else:
        return
    by_put(out, value, length)
    by_text(out, b"\r\n")


cdef void hd_request(Out *out, const Head *head, const uint8_t *data, const Identity *identity, bint sign_next,
                     const uint8_t *host, size_t host_length, int64_t content_length) noexcept nogil:
    """The head that goes to Nova. sign_next: with the next secret's signature. content_length: of the body
    that follows, -1 for none. Of the guest's head there is method, target and what is on the allow-list; data is the
    buffer that head was parsed from."""
    cdef uint16_t i
    by_put(out, data + head.method_at, head.method_length)
    by_text(out, b" ")
    if head.target_length == 0 or data[head.target_at] != 47:
        by_text(out, b"/")               # of an absolute target without a path: RFC 9112 section 3.2.1
    by_put(out, data + head.target_at, head.target_length)
    by_text(out, b" HTTP/1.1\r\nHost: ")
    by_put(out, host, host_length)
    by_text(out, b"\r\n")
    if by_unlikely(sign_next):
        by_put(out, identity.data, identity.length - SG_HEX_LENGTH - 2)
        by_put(out, identity.next_signature, SG_HEX_LENGTH)
        by_text(out, b"\r\n")
    else:
        by_put(out, identity.data, identity.length)
    if content_length >= 0:
        by_text(out, b"Content-Length: ")
        by_put_number(out, <uint64_t> content_length)
        by_text(out, b"\r\n")
    for i in range(head.header_n):
        if head.headers[i].known >= H1_PASS:
            hd_put_passed(out, head.headers[i].known, data + head.headers[i].value_at, head.headers[i].value_length)
    by_text(out, b"\r\n")


cdef bint hd_is_nominated(const Head *head, const uint8_t *data, const Header *header) noexcept nogil:
    """Whether a Connection header of this message names this header: RFC 9110 section 7.6.1."""
    cdef uint16_t i
    for i in range(head.header_n):
        if head.headers[i].known == H1_CONNECTION:
            if by_has_token(data + head.headers[i].value_at, head.headers[i].value_length,
                            data + header.name_at, header.name_length):
                return True
    return False


cdef void hd_put_connection(Out *out, bint http11, bint keep_alive) noexcept nogil:
    """What the guest must be told about its connection, RFC 9112 section 9.3: only what its version does not imply."""
    if not keep_alive:
        by_text(out, b"Connection: close\r\n")
    elif not http11:
        by_text(out, b"Connection: keep-alive\r\n")


cdef void hd_response(Out *out, const Head *head, const uint8_t *data, uint8_t framing, bint http11,
                      bint keep_alive) noexcept nogil:
    """The head that goes to the guest, made of an answer's. framing: of the content that follows, H1_FRAMING_*; http11,
    keep_alive: of the guest's connection. All but hop-by-hop headers pass as they are. The result is never longer than
    the original by more than HD_RESPONSE_GROWTH."""
    cdef uint16_t i
    cdef const Header *header
    cdef uint8_t known
    by_text(out, b"HTTP/1.1 ")
    by_put(out, data + head.status_at, 3)
    by_text(out, b" ")
    by_put(out, data + head.reason_at, head.reason_length)
    by_text(out, b"\r\n")
    for i in range(head.header_n):
        header = &head.headers[i]
        known = header.known
        if known >= H1_CONNECTION and known <= H1_HOP_BY_HOP and known != H1_EXPECT:
            continue
        if by_unlikely(head.nominates) and hd_is_nominated(head, data, header):
            continue
        # One copy: the colon and the white space around the value come along as they were.
        by_put(out, data + header.name_at, <size_t> (header.value_at + header.value_length - header.name_at))
        by_text(out, b"\r\n")
    if framing == H1_FRAMING_CHUNKED:
        by_text(out, b"Transfer-Encoding: chunked\r\n")
    elif head.content_length >= 0 and head.status >= 200 and head.status != 204:
        # Also without content, for HEAD and 304: what the content's length would be.
        by_text(out, b"Content-Length: ")
        by_put_number(out, <uint64_t> head.content_length)
        by_text(out, b"\r\n")
    hd_put_connection(out, http11, keep_alive)
    by_text(out, b"\r\n")


cdef enum:
    HD_RESPONSE_GROWTH = 96    # a framing line and a connection line more than the answer had

cdef enum:
    HD_MAX_ANSWER = 512        # bytes of an answer of our own, content included


cdef const char *hd_reason(int status) noexcept nogil:
    if status == 400:
        return b"Bad Request"
    if status == 404:
        return b"Not Found"
    if status == 408:
        return b"Request Timeout"
    if status == 413:
        return b"Content Too Large"
    if status == 414:
        return b"URI Too Long"
    if status == 429:
        return b"Too Many Requests"
    if status == 431:
        return b"Request Header Fields Too Large"
    if status == 501:
        return b"Not Implemented"
    if status == 502:
        return b"Bad Gateway"
    if status == 504:
        return b"Gateway Timeout"
    return b"Service Unavailable"


cdef const char *hd_text(int status) noexcept nogil:
    """What a person who looks at the answer is told. It names no internals and no identity."""
    if status == 400:
        return b"The request is malformed or ambiguous.\n"
    if status == 404:
        return b"No instance was found at this address.\n"
    if status == 408:
        return b"The request arrived too slowly.\n"
    if status == 413:
        return b"The request's content is too large.\n"
    if status == 414:
        return b"The request's target is too long.\n"
    if status == 429:
        return b"Too many requests from this address.\n"
    if status == 431:
        return b"The request's header section is too large.\n"
    if status == 501:
        return b"The method or transfer coding is not supported.\n"
    if status == 502:
        return b"The metadata service gave no valid answer.\n"
    if status == 504:
        return b"The metadata service did not answer in time.\n"
    return b"Metadata is not available at the moment; try again.\n"


cdef void hd_answer(Out *out, int status, uint32_t retry_after_s, bint without_content, bint http11,
                    bint keep_alive) noexcept nogil:
    """An answer of our own. retry_after_s: 0 for none."""
    cdef char date[40]
    cdef tm parts
    cdef time_t now = time(NULL)
    cdef const char *text = hd_text(status)
    cdef size_t n = 0
    by_text(out, b"HTTP/1.1 ")
    by_put_number(out, <uint64_t> status)
    by_text(out, b" ")
    by_text(out, hd_reason(status))
    # RFC 9110 section 6.6.1 wants a Date of whoever has a clock and makes an answer. No setlocale: names are English.
    if gmtime_r(&now, &parts) is not NULL and strftime(date, sizeof(date), b"%a, %d %b %Y %H:%M:%S GMT", &parts):
        by_text(out, b"\r\nDate: ")
        by_text(out, date)
    by_text(out, b"\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: ")
    while text[n] != 0:
        n += 1
    by_put_number(out, n)
    by_text(out, b"\r\n")
    if retry_after_s:
        by_text(out, b"Retry-After: ")
        by_put_number(out, retry_after_s)
        by_text(out, b"\r\n")
    hd_put_connection(out, http11, keep_alive)
    by_text(out, b"\r\n")
    if not without_content:
        by_put(out, text, n)
