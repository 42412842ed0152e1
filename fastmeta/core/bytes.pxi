# Bytes: a bounded output cursor, comparisons, classes of bytes. Prefix by_.
# Owns nothing: an Out borrows memory of its maker. The only appending to memory in the core goes through by_put*, which
# refuse (and remember it in `overflow`) what does not fit.

cdef enum:
    BY_TOKEN = 1      # tchar, RFC 9110 section 5.6.2
    BY_VALUE = 2      # field-vchar, SP, HTAB, obs-text: RFC 9110 section 5.5
    BY_TARGET = 4     # what a request target may hold: RFC 9112 section 3.2, without "#", which no form of it has
    BY_HEX = 8
    BY_UNDERSCORE = 16

cdef uint8_t by_class[256]


cdef void by_init_classes() noexcept nogil:
    """Fills by_class; called once, on import."""
    cdef int c
    cdef const char *marks = b"!#$%&'*+-.^_`|~"
    for c in range(256):
        by_class[c] = 0
        if c == 9 or (c >= 32 and c != 127):
            by_class[c] |= BY_VALUE
        if 33 <= c <= 126 and c != 35:
            by_class[c] |= BY_TARGET
        if 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122:
            by_class[c] |= BY_TOKEN
        if 48 <= c <= 57 or 65 <= c <= 70 or 97 <= c <= 102:
            by_class[c] |= BY_HEX
        if c == 95:
            by_class[c] |= BY_UNDERSCORE
    for c in range(15):
        by_class[<uint8_t> marks[c]] |= BY_TOKEN


cdef struct Out:
    uint8_t *data
    size_t length
    size_t capacity
    bint overflow


cdef inline void by_put(Out *out, const void *data, size_t length) noexcept nogil:
    if by_unlikely(out.capacity - out.length < length):
        out.overflow = True
        return
    memcpy(out.data + out.length, data, length)
    out.length += length


cdef inline void by_text(Out *out, const char *text) noexcept nogil:
    """Appends a string; of a literal the compiler knows the length."""
    by_put(out, text, strlen(text))


cdef void by_put_number(Out *out, uint64_t number) noexcept nogil:
    """Decimal digits."""
    cdef uint8_t digits[20]
    cdef size_t at = 20
    while True:
        at -= 1
        digits[at] = <uint8_t> (48 + number % 10)
        number //= 10
        if number == 0:
            break
    by_put(out, digits + at, 20 - at)


cdef size_t by_hex(uint8_t *text, uint64_t number) noexcept nogil:
    """Writes number in hexadecimal, at most 16 digits, to text; returns how many."""
    cdef const char *digits = b"0123456789abcdef"
    cdef size_t n = 1
    cdef size_t i
    cdef uint64_t rest = number >> 4
    while rest:
        n += 1
        rest >>= 4
    for i in range(n):
        text[n - 1 - i] = <uint8_t> digits[number & 15]
        number >>= 4
    return n


cdef extern from *:
    """
    /* Sixteen bytes at a time: bit n says that byte n is one that ... All x86-64 has SSE2; elsewhere a loop does it. */
    #ifdef __SSE2__
    #include <emmintrin.h>
    #define BY_LOAD(p) _mm_loadu_si128((const __m128i *)(p))
    #define BY_ALL(c) _mm_set1_epi8(c)
    #define BY_IS(x, c) _mm_cmpeq_epi8(x, BY_ALL(c))
    #define BY_UP_TO(x, c) _mm_cmpeq_epi8(_mm_min_epu8(x, BY_ALL(c)), x)
    #define BY_OR(a, b) _mm_or_si128(a, b)
    #define BY_BITS(x) ((unsigned)_mm_movemask_epi8(x))

    /* ... no field value holds, or HTAB. */
    static inline unsigned by_odd_16(const void *p)
    {
        __m128i x = BY_LOAD(p);
        return BY_BITS(BY_OR(BY_UP_TO(x, 31), BY_IS(x, 127)));
    }

    /* ... is LF. */
    static inline unsigned by_line_end_16(const void *p)
    {
        return BY_BITS(BY_IS(BY_LOAD(p), 10));
    }

    /* ... no request target holds: SP, "#", controls, and what is not ASCII. */
    static inline unsigned by_no_target_16(const void *p)
    {
        __m128i x = BY_LOAD(p);
        return BY_BITS(BY_OR(BY_OR(BY_UP_TO(x, 32), BY_IS(x, 127)), BY_OR(BY_IS(x, 35), x)));
    }

    /* ... is neither a letter nor "-". Bytes are signed here: what is not ASCII is below "a". */
    static inline unsigned by_no_name_16(const void *p)
    {
        __m128i x = BY_LOAD(p), lower = BY_OR(x, BY_ALL(32));
        __m128i letter = _mm_and_si128(_mm_cmpgt_epi8(lower, BY_ALL(96)), _mm_cmplt_epi8(lower, BY_ALL(123)));
        return BY_BITS(BY_OR(letter, BY_IS(x, 45))) ^ 0xffff;
    }
    #else
    #define BY_SIXTEEN(name, test) \
        static inline unsigned name(const void *p) \
        { \
            unsigned bits = 0; \
            for (unsigned i = 0; i < 16; i++) { \
                unsigned c = ((const unsigned char *)p)[i]; \
                bits |= (unsigned)(test) << i; \
            } \
            return bits; \
        }
    BY_SIXTEEN(by_odd_16, c < 32 || c == 127)
    BY_SIXTEEN(by_line_end_16, c == 10)
    BY_SIXTEEN(by_no_target_16, c <= 32 || c >= 127 || c == 35)
    BY_SIXTEEN(by_no_name_16, !((c | 32) >= 97 && (c | 32) <= 122) && c != 45)
    #endif
    """
    unsigned int by_odd_16(const void *p) noexcept nogil
    unsigned int by_line_end_16(const void *p) noexcept nogil
    unsigned int by_no_target_16(const void *p) noexcept nogil
    unsigned int by_no_name_16(const void *p) noexcept nogil


cdef inline size_t by_find_line_end(const uint8_t *data, size_t at, size_t end) noexcept nogil:
    """The place of the first LF in data[at:end], or end. Lines are short: memchr would cost more."""
    cdef unsigned int found
    while end - at >= 16:
        found = by_line_end_16(data + at)
        if found:
            return at + by_count_zeros(found)
        at += 16
    while at < end and data[at] != 10:
        at += 1
    return at


# These find the end of something in data[at:end]. Of data, `length` bytes may be read, which is `end` or more: so that
# the last bytes of a line can be looked at with those that follow it.

cdef inline size_t by_skip_value(const uint8_t *data, size_t at, size_t end, size_t length) noexcept nogil:
    """The place of the first byte that no field value may hold (BY_VALUE), or end."""
    cdef unsigned int found
    while at < end and length - at >= 16:
        found = by_odd_16(data + at)
        if found == 0:
            at += 16
            continue
        at += by_count_zeros(found)
        if by_likely(at >= end) or data[at] != 9:
            break
        at += 1
    while at < end and by_class[data[at]] & BY_VALUE:
        at += 1
    return min(at, end)


cdef inline size_t by_skip_target(const uint8_t *data, size_t at, size_t end, size_t length) noexcept nogil:
    """The place of the first byte that no request target may hold (BY_TARGET), or end."""
    cdef unsigned int found
    while at < end and length - at >= 16:
        found = by_no_target_16(data + at)
        if found:
            return min(at + by_count_zeros(found), end)
        at += 16
    while at < end and by_class[data[at]] & BY_TARGET:
        at += 1
    return min(at, end)


cdef inline size_t by_skip_name(const uint8_t *data, size_t at, size_t end, size_t length) noexcept nogil:
    """The place of the first byte that is neither a letter nor "-", or an earlier one, or end."""
    cdef unsigned int found
    while at < end and length - at >= 16:
        found = by_no_name_16(data + at)
        if found:
            return min(at + by_count_zeros(found), end)
        at += 16
    return min(at, end)


cdef inline bint by_is(const uint8_t *name, const char *lower, size_t length) noexcept nogil:
    """Whether name is lower, but for the case of letters. For token bytes only: then only the two cases of a letter
    give the same byte with the bit 0x20 set, and "-" stands only for itself. The last word may overlap the one before
    it."""
    cdef uint64_t word
    cdef uint64_t wanted
    cdef uint32_t half
    cdef uint32_t half_wanted
    cdef size_t i = 0
    if length >= 8:
        while True:
            memcpy(&word, name + i, 8)
            memcpy(&wanted, lower + i, 8)
            if (word | <uint64_t> 0x2020202020202020) != wanted:
                return False
            if i + 8 == length:
                return True
            i = min(i + 8, length - 8)
    if length >= 4:
        memcpy(&half, name, 4)
        memcpy(&half_wanted, lower, 4)
        if (half | <uint32_t> 0x20202020) != half_wanted:
            return False
        memcpy(&half, name + length - 4, 4)
        memcpy(&half_wanted, lower + length - 4, 4)
        return (half | <uint32_t> 0x20202020) == half_wanted
    while i < length:
        if (name[i] | 0x20) != <uint8_t> lower[i]:
            return False
        i += 1
    return True


cdef bint by_is_folded(const uint8_t *name, const char *lower, size_t length) noexcept nogil:
    """As by_is, but "_" counts as "-": what WSGI makes of a header's name (PEP 3333)."""
    cdef size_t i
    cdef uint8_t c
    for i in range(length):
        c = name[i] if name[i] != 95 else 45
        if (c | 0x20) != <uint8_t> lower[i]:
            return False
    return True


cdef bint by_has_token(const uint8_t *value, size_t length, const uint8_t *token, size_t token_length) noexcept nogil:
    """Whether a comma-separated list (RFC 9110 section 5.6.1) holds token, but for the case of letters."""
    cdef size_t at = 0
    cdef size_t end
    cdef size_t stop
    cdef size_t i
    while at <= length:
        end = at
        while end < length and value[end] != 44:
            end += 1
        stop = end
        while at < stop and (value[at] == 32 or value[at] == 9):
            at += 1
        while stop > at and (value[stop - 1] == 32 or value[stop - 1] == 9):
            stop -= 1
        if stop - at == token_length:
            i = 0
            while i < token_length and (value[at + i] | 0x20) == (token[i] | 0x20):
                i += 1
            if i == token_length:
                return True
        at = end + 1
    return False


cdef int64_t by_decimal(const uint8_t *text, size_t length) noexcept nogil:
    """1*DIGIT, at most 18 of them, as a number; -1 for anything else."""
    cdef int64_t number = 0
    cdef size_t i
    if length == 0 or length > 18:
        return -1
    for i in range(length):
        if text[i] < 48 or text[i] > 57:
            return -1
        number = number * 10 + (text[i] - 48)
    return number
