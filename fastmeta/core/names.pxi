# Names of headers that mean something to us. Prefix h1_, shared with http.pxi.

# Those from H1_PASS on are harmless and pass to Nova.
cdef enum:
    H1_OTHER = 0
    H1_HOST = 1
    H1_CONNECTION = 2
    H1_CONTENT_LENGTH = 3
    H1_TRANSFER_ENCODING = 4
    H1_EXPECT = 5
    H1_HOP_BY_HOP = 6          # RFC 9110 section 7.6.1, and what proxies of old used
    H1_PASS = 16
    H1_ACCEPT = 16
    H1_ACCEPT_ENCODING = 17
    H1_ACCEPT_LANGUAGE = 18
    H1_CONTENT_TYPE = 19
    H1_IF_MODIFIED_SINCE = 20
    H1_IF_NONE_MATCH = 21
    H1_RANGE = 22
    H1_USER_AGENT = 23


cdef inline int h1_known(const uint8_t *name, size_t length) noexcept nogil:
    """Which of them this is, in any case of letters."""
    if length == 4:
        return H1_HOST if by_is(name, b"host", 4) else H1_OTHER
    if length == 5:
        return H1_RANGE if by_is(name, b"range", 5) else H1_OTHER
    if length == 6:
        if by_is(name, b"accept", 6):
            return H1_ACCEPT
        return H1_EXPECT if by_is(name, b"expect", 6) else H1_OTHER
    if length == 10:
        if by_is(name, b"connection", 10):
            return H1_CONNECTION
        if by_is(name, b"user-agent", 10):
            return H1_USER_AGENT
        return H1_HOP_BY_HOP if by_is(name, b"keep-alive", 10) else H1_OTHER
    if length == 12:
        return H1_CONTENT_TYPE if by_is(name, b"content-type", 12) else H1_OTHER
    if length == 13:
        return H1_IF_NONE_MATCH if by_is(name, b"if-none-match", 13) else H1_OTHER
    if length == 14:
        return H1_CONTENT_LENGTH if by_is(name, b"content-length", 14) else H1_OTHER
    if length == 15:
        if by_is(name, b"accept-encoding", 15):
            return H1_ACCEPT_ENCODING
        return H1_ACCEPT_LANGUAGE if by_is(name, b"accept-language", 15) else H1_OTHER
    if length == 17:
        if by_is(name, b"transfer-encoding", 17):
            return H1_TRANSFER_ENCODING
        return H1_IF_MODIFIED_SINCE if by_is(name, b"if-modified-since", 17) else H1_OTHER
    if length == 2:
        return H1_HOP_BY_HOP if by_is(name, b"te", 2) else H1_OTHER
    if length == 7:
        if by_is(name, b"upgrade", 7) or by_is(name, b"trailer", 7):
            return H1_HOP_BY_HOP
        return H1_OTHER
    if length == 16:
        return H1_HOP_BY_HOP if by_is(name, b"proxy-connection", 16) else H1_OTHER
    return H1_OTHER
