# Chunked transfer coding, RFC 9112 section 7.1: decodes in place, byte by byte resumable. Prefix ck_. Owns nothing.

cdef enum:
    CK_SIZE_FIRST = 0      # the first digit of a chunk's size
    CK_SIZE = 1
    CK_EXTENSION = 2
    CK_SIZE_LF = 3
    CK_CONTENT = 4
    CK_CONTENT_CR = 5
    CK_CONTENT_LF = 6
    CK_TRAILER_START = 7   # at the start of a line after the last chunk
    CK_TRAILER_NAME = 8
    CK_TRAILER_VALUE = 9
    CK_TRAILER_LF = 10
    CK_END_LF = 11
    CK_COMPLETE = 12

cdef enum:
    CK_MAX_DIGITS = 15     # of a chunk's size: no overflow of 64 bits
    CK_MAX_EXTRA = 8192    # bytes of extensions and trailers in a whole message; they are checked and dropped

cdef enum:
    CK_MORE = 0
    CK_DONE = 1
    CK_BAD = -1


cdef struct Chunked:
    # All zero: at the start of a message.
    uint64_t left          # of the present chunk's content
    uint32_t extra
    uint8_t digits
    uint8_t state
    bint last


cdef int ck_line_byte(Chunked *chunked, uint8_t c) noexcept nogil:
    """A byte that is not content. Returns CK_MORE, CK_DONE or CK_BAD. Only CRLF ends a line; only token characters and
    a colon make a trailer's name."""
    cdef uint8_t state = chunked.state
    if state == CK_SIZE_FIRST or state == CK_SIZE:
        if by_class[c] & BY_HEX:
            chunked.digits += 1
            if chunked.digits > CK_MAX_DIGITS:
                return CK_BAD
            chunked.left = chunked.left * 16 + <uint64_t> ((c & 15) + (9 if c > 57 else 0))
            chunked.state = CK_SIZE
            return CK_MORE
        if state == CK_SIZE and c == 13:
            chunked.state = CK_SIZE_LF
            return CK_MORE
        if state == CK_SIZE and c == 59:
            chunked.state = CK_EXTENSION
            return CK_MORE
        return CK_BAD
    if state == CK_SIZE_LF:
        if c != 10:
            return CK_BAD
        chunked.digits = 0
        chunked.last = chunked.left == 0
        chunked.state = <uint8_t> (CK_TRAILER_START if chunked.last else CK_CONTENT)
        return CK_MORE
    if state == CK_CONTENT_CR:
        chunked.state = CK_CONTENT_LF
        return CK_MORE if c == 13 else CK_BAD
    if state == CK_CONTENT_LF:
        chunked.state = CK_SIZE_FIRST
        return CK_MORE if c == 10 else CK_BAD
    if state == CK_END_LF:
        chunked.state = CK_COMPLETE
        return CK_DONE if c == 10 else CK_BAD
    if state == CK_TRAILER_LF:
        chunked.state = CK_TRAILER_START
        return CK_MORE if c == 10 else CK_BAD
    # What is left has variable length and no use for us: extensions and trailers.
    chunked.extra += 1
    if chunked.extra > CK_MAX_EXTRA:
        return CK_BAD
    if state == CK_EXTENSION or state == CK_TRAILER_VALUE:
        if c == 13:
            chunked.state = <uint8_t> (CK_SIZE_LF if state == CK_EXTENSION else CK_TRAILER_LF)
            return CK_MORE
        return CK_MORE if by_class[c] & BY_VALUE else CK_BAD
    if state == CK_TRAILER_START and c == 13:
        chunked.state = CK_END_LF
        return CK_MORE
    if state == CK_TRAILER_NAME and c == 58:
        chunked.state = CK_TRAILER_VALUE
        return CK_MORE
    chunked.state = CK_TRAILER_NAME
    return CK_MORE if by_class[c] & BY_TOKEN else CK_BAD


cdef int ck_decode(Chunked *chunked, uint8_t *data, size_t length, size_t *content_length,
                   size_t *used) noexcept nogil:
    """Decodes data in place: afterwards data[:content_length] is content, and `used` bytes of the coded data were
    consumed (all of them unless the message ended). Returns CK_MORE, CK_DONE or CK_BAD."""
    cdef size_t at = 0
    cdef size_t written = 0
    cdef size_t n
    cdef int result = CK_MORE
    while at < length and result == CK_MORE:
        if chunked.state == CK_CONTENT:
            n = length - at
            if n > chunked.left:
                n = <size_t> chunked.left
            if at != written:
                memmove(data + written, data + at, n)
            written += n
            at += n
            chunked.left -= n
            if chunked.left == 0:
                chunked.state = CK_CONTENT_CR
        else:
            result = ck_line_byte(chunked, data[at])
            at += 1
    content_length[0] = written
    used[0] = at
    return result
