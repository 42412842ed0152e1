# Signature of an instance id, as Nova checks it: hex of HMAC-SHA256 with the shared secret. Prefix sg_.

cdef enum:
    SG_HEX_LENGTH = 64

cdef enum:
    SG_ANY = 0                 # the one that the server accepted last
    SG_PRESENT = 1             # with metadata_proxy_shared_secret
    SG_NEXT = 2                # with next_shared_secret


cdef int sg_sign(const uint8_t *secret, size_t secret_length, const uint8_t *message, size_t length,
                 uint8_t *hex_text) noexcept nogil:
    """Writes SG_HEX_LENGTH bytes to hex_text. Returns 0, or -1 when OpenSSL refuses."""
    cdef unsigned char digest[64]
    cdef unsigned int digest_length = 0
    cdef const char *digits = b"0123456789abcdef"
    cdef size_t i
    # OpenSSL takes a NULL key for "keep the former one": an empty secret needs a pointer too.
    if HMAC(EVP_sha256(), secret if secret_length else <const uint8_t *> b"", <int> secret_length, message, length,
            digest, &digest_length) is NULL or digest_length != 32:
        return -1
    for i in range(32):
        hex_text[2 * i] = <uint8_t> digits[digest[i] >> 4]
        hex_text[2 * i + 1] = <uint8_t> digits[digest[i] & 15]
    return 0
