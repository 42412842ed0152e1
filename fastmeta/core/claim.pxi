# What a proxy that Neutron's agents started says of whom it speaks for: a network or router, and an address. Prefix
# ry_, shared with relay.pxi. Pure.
#
# The proxy deletes a guest's own X-Neutron-Network-ID and X-Neutron-Router-ID, puts one of them in, and puts an
# X-Forwarded-For of its own behind all that the guest has sent. What it does not delete is a name that only a WSGI
# gateway takes for the same ("_" for "-", PEP 3333): such a one counts here, too, so that there are two, and no answer.

cdef struct Claim:
    uint8_t kind               # SC_NETWORK or SC_ROUTER
    uint8_t uuid[16]
    uint8_t address[16]


cdef int ry_hex(uint8_t c) noexcept nogil:
    """The value of a hexadecimal digit, or -1."""
    cdef int value = c
    if 48 <= value <= 57:
        return value - 48
    value |= 0x20
    if 97 <= value <= 102:
        return value - 87
    return -1


cdef bint ry_uuid(const uint8_t *text, size_t length, uint8_t *uuid) noexcept nogil:
    """The 16 bytes of a UUID with hyphens (RFC 9562 section 4); False for any other text."""
    cdef size_t at = 0
    cdef int n
    cdef int high
    cdef int low
    if length != 36:
        return False
    for n in range(16):
        if n == 4 or n == 6 or n == 8 or n == 10:
            if text[at] != 45:
                return False
            at += 1
        high = ry_hex(text[at])
        low = ry_hex(text[at + 1])
        if high < 0 or low < 0:
            return False
        uuid[n] = <uint8_t> (high * 16 + low)
        at += 2
    return True


cdef bint ry_address(const uint8_t *text, size_t length, uint8_t *address) noexcept nogil:
    """The 16 bytes of exactly one IP address (IPv4 as ::ffff:a.b.c.d, however it is written); False for any other text,
    also with a zone or a port."""
    cdef char copy[INET6_ADDRSTRLEN]
    if length == 0 or length >= INET6_ADDRSTRLEN:
        return False
    memcpy(copy, text, length)
    copy[length] = 0
    if inet_pton(AF_INET, copy, address + 12) == 1:
        memset(address, 0, 10)
        address[10] = 255
        address[11] = 255
        return True
    return inet_pton(AF_INET6, copy, address) == 1


cdef bint ry_is(const uint8_t *data, const Header *header, const char *lower, size_t length) noexcept nogil:
    return header.name_length == length and by_is_folded(data + header.name_at, lower, length)


cdef int ry_claim(const Head *head, const uint8_t *data, Claim *claim) noexcept nogil:
    """Reads it from a head, data being the buffer that it was parsed from. RF_NONE; RF_PROXY when it is missing or
    ambiguous; RF_ABSENT when the network or router is none: openstack-helm asks so whether an agent lives."""
    cdef const Header *forwarded = NULL
    cdef const Header *identifier = NULL
    cdef const Header *header
    cdef uint8_t kind
    cdef uint16_t i
    for i in range(head.header_n):
        header = &head.headers[i]
        kind = SC_UNNAMED
        if ry_is(data, header, b"x-forwarded-for", 15):
            forwarded = header             # the last one counts: those before it are the guest's
        elif ry_is(data, header, b"x-neutron-network-id", 20):
            kind = SC_NETWORK
        elif ry_is(data, header, b"x-neutron-router-id", 19):
            kind = SC_ROUTER
        if kind != SC_UNNAMED:
            if identifier is not NULL:
                return RF_PROXY
            identifier = header
            claim.kind = kind
    if identifier is NULL:
        return RF_PROXY
    if not ry_uuid(data + identifier.value_at, identifier.value_length, claim.uuid):
        return RF_ABSENT
    if forwarded is NULL or not ry_address(data + forwarded.value_at, forwarded.value_length, claim.address):
        return RF_PROXY
    return RF_NONE
