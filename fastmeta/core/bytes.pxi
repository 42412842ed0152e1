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


cdef inline bint by_is_odd(uint64_t word) noexcept nogil:
    """Whether one of eight bytes is below SP (HTAB too) or is DEL. Arithmetic on the bytes of a word: Hacker's Delight,
    section 6-1."""
    cdef uint64_t turned = word ^ <uint64_t> 0x7f7f7f7f7f7f7f7f
    cdef uint64_t below = (word - <uint64_t> 0x2020202020202020) & ~word
    cdef uint64_t zero = (turned - <uint64_t> 0x0101010101010101) & ~turned
    return ((below | zero) & <uint64_t> 0x8080808080808080) != 0


cdef inline size_t by_skip_value(const uint8_t *data, size_t start, size_t at, size_t end) noexcept nogil:
    """The place of the first byte in data[at:end] that no field value may hold (BY_VALUE), or end. Eight bytes at a
    time where they are nothing unusual; data[start:at] is known to be of BY_VALUE, so the last word may begin there."""
    cdef uint64_t word
    while end - at >= 8:
        memcpy(&word, data + at, 8)
        if by_is_odd(word):
            break
        at += 8
    if end - at < 8 and end - start >= 8:
        memcpy(&word, data + end - 8, 8)
        if not by_is_odd(word):
            return end
    while at < end and by_class[data[at]] & BY_VALUE:
        at += 1
    return at


cdef inline size_t by_skip_name(const uint8_t *data, size_t at, size_t end) noexcept nogil:
    """The place of the first byte in data[at:end] that is neither a letter nor "-", or an earlier one: eight bytes at a
    time, as far as that goes."""
    cdef uint64_t word
    cdef uint64_t lower
    cdef uint64_t good
    while end - at >= 8:
        memcpy(&word, data + at, 8)
        lower = (word | <uint64_t> 0x2020202020202020) & <uint64_t> 0x7f7f7f7f7f7f7f7f
        # High bits: at least "a" and not above "z" ...
        good = (lower + <uint64_t> 0x1f1f1f1f1f1f1f1f) & ~(lower + <uint64_t> 0x0505050505050505)
        # ... or "-" (its difference to "-" is zero) ...
        lower = word ^ <uint64_t> 0x2d2d2d2d2d2d2d2d
        good |= ~(((lower & <uint64_t> 0x7f7f7f7f7f7f7f7f) + <uint64_t> 0x7f7f7f7f7f7f7f7f) | lower)
        # ... and in ASCII.
        good = ~(good & ~word) & <uint64_t> 0x8080808080808080
        if good:
            return at + (by_count_zeros(good) >> 3)
        at += 8
    return at


cdef inline bint by_is(const uint8_t *name, const char *lower, size_t length) noexcept nogil:
    """Whether name is lower, but for the case of letters. For token bytes only: then only the two cases of a letter
    give the same byte with the bit 0x20 set, and "-" stands only for itself."""
    cdef uint64_t word
    cdef uint64_t wanted
    cdef size_t i = 0
    while length - i >= 8:
        memcpy(&word, name + i, 8)
        memcpy(&wanted, lower + i, 8)
        if (word | <uint64_t> 0x2020202020202020) != wanted:
            return False
        i += 8
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
