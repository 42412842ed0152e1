# TLS towards Nova, by OpenSSL, without blocking. Prefix tl_. An SSL belongs to its Upstream, a context to whoever holds
# a reference. Here is only what differs from plain sockets: tl_receive and tl_send behave as recv(2) and send(2) do.
#
# SSL_write ends in write(2), which raises SIGPIPE when Nova has closed; Python ignores that signal from its start on.

cdef enum:
    TL_DONE = 1
    TL_WANTS_READ = 0
    TL_WANTS_WRITE = 2
    TL_FAILED = -1


cdef int tl_no_passphrase(char *text, int size, int writes, void *data) noexcept nogil:
    """Without this OpenSSL asks the terminal for the passphrase of an encrypted key."""
    return 0


cdef bint tl_is_address(const char *name) noexcept nogil:
    cdef uint8_t address[16]
    return inet_pton(AF_INET, name, address) == 1 or inet_pton(AF_INET6, name, address) == 1


cdef int tl_begin(Upstream *up, SSL_CTX *context, const char *name, SSL_SESSION *session) noexcept nogil:
    """Prepares the handshake on a connection that is there. name: whom the certificate must be for. session: to be
    resumed, or NULL. Returns 0, or -1 without memory."""
    cdef X509_VERIFY_PARAM *parameters
    cdef bint set_up
    up.tls = SSL_new(context)
    if up.tls is NULL:
        return -1
    parameters = SSL_get0_param(up.tls)
    if tl_is_address(name):
        set_up = X509_VERIFY_PARAM_set1_ip_asc(parameters, name) == 1
    else:
        # Not for addresses: RFC 6066 section 3.
        X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
        set_up = (X509_VERIFY_PARAM_set1_host(parameters, name, strlen(name)) == 1
                  and SSL_set_tlsext_host_name(up.tls, name) == 1)
    if not set_up or SSL_set_fd(up.tls, up.socket.fd) != 1:
        return -1
    if session is not NULL and SSL_set_session(up.tls, session) != 1:
        ERR_clear_error()                  # then a full handshake
    return 0


cdef int tl_shake(Upstream *up) noexcept nogil:
    """Goes on with the handshake: one of TL_*."""
    cdef int result
    cdef int reason
    ERR_clear_error()
    result = SSL_connect(up.tls)
    if result == 1:
        return TL_DONE
    reason = SSL_get_error(up.tls, result)
    if reason == SSL_ERROR_WANT_READ:
        return TL_WANTS_READ
    if reason == SSL_ERROR_WANT_WRITE:
        return TL_WANTS_WRITE
    return TL_FAILED


cdef int tl_certificate_error(const Upstream *up) noexcept nogil:
    """After a failure: why the server's certificate is refused (X509_V_ERR_*), or 0 when that was not the reason."""
    cdef long error
    if SSL_get_verify_mode(up.tls) == SSL_VERIFY_NONE:
        return 0
    error = SSL_get_verify_result(up.tls)
    return 0 if error == X509_V_OK else <int> error


cdef int tl_error() noexcept nogil:
    """After a failure: OpenSSL's code of its first reason, which fits (ERR_PACK); 0 when the connection just ended."""
    return <int> ERR_peek_error()


cdef ssize_t tl_receive(Upstream *up, void *data, size_t length) noexcept nogil:
    """As recv(2). 0 only when the server has said that it ends here: a connection that is just closed may have been cut
    (RFC 9112 section 9.8), which is ECONNRESET. EPROTO: see tl_error."""
    cdef int n
    cdef int reason
    ERR_clear_error()
    # Reading ahead saves a call for each record; behind the head there may be so many that epoll must be asked between.
    SSL_set_read_ahead(up.tls, 0 if up.has_head else 1)
    n = SSL_read(up.tls, data, <int> length)
    if n > 0:
        return n
    reason = SSL_get_error(up.tls, n)
    if reason == SSL_ERROR_ZERO_RETURN:
        return 0
    tl_set_errno(reason)
    return -1


cdef ssize_t tl_send(Upstream *up, const void *data, size_t length) noexcept nogil:
    """As send(2)."""
    cdef int n
    if length > SCRATCH:
        length = SCRATCH                   # an int holds it
    ERR_clear_error()
    n = SSL_write(up.tls, data, <int> length)
    if n > 0:
        return n
    tl_set_errno(SSL_get_error(up.tls, n))
    return -1


cdef void tl_set_errno(int reason) noexcept nogil:
    """EAGAIN also for a write that must read first, and the other way round: without renegotiation neither waits for
    more than what epoll is asked for."""
    if reason == SSL_ERROR_WANT_READ or reason == SSL_ERROR_WANT_WRITE:
        by_set_errno(EAGAIN)
    elif reason == SSL_ERROR_SYSCALL or tl_error() == 0:
        by_set_errno(ECONNRESET)
    else:
        by_set_errno(EPROTO)


cdef inline bint tl_holds(const Upstream *up) noexcept nogil:
    """Whether bytes have been received that nobody has read yet: epoll does not know of them."""
    return up.tls is not NULL and SSL_has_pending(up.tls)


cdef bint tl_is_quiet(Upstream *up) noexcept nogil:
    """Whether an idle connection is open, and nothing came that is content. Session tickets may come at any time: RFC
    8446 section 4.6.1."""
    cdef uint8_t first
    cdef int n
    ERR_clear_error()
    n = SSL_peek(up.tls, &first, 1)
    return n <= 0 and SSL_get_error(up.tls, n) == SSL_ERROR_WANT_READ


cdef void tl_keep_session(Upstream *up, SSL_SESSION **place) noexcept nogil:
    """Keeps the session for the next connection. Called when an answer has come: so have the tickets."""
    cdef SSL_SESSION *session = SSL_get1_session(up.tls)
    up.session_kept = True
    if session is NULL:
        return
    if not SSL_SESSION_is_resumable(session):
        SSL_SESSION_free(session)
        return
    SSL_SESSION_free(place[0])
    place[0] = session


cdef void tl_end(Upstream *up, bint polite) noexcept nogil:
    """Frees the SSL. polite: tells the server, which only an idle connection can."""
    if up.tls is NULL:
        return
    ERR_clear_error()
    if polite:
        SSL_shutdown(up.tls)
    # Otherwise OpenSSL takes the session for one that must not be resumed.
    SSL_set_shutdown(up.tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    SSL_free(up.tls)
    up.tls = NULL
    ERR_clear_error()


cdef SSL_CTX *tl_context(bint insecure) noexcept nogil:
    """A context for connections to Nova, without files yet; NULL without memory."""
    cdef SSL_CTX *context = SSL_CTX_new(TLS_client_method())
    if context is NULL:
        return NULL
    if SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1:
        SSL_CTX_free(context)
        return NULL
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                     | SSL_MODE_RELEASE_BUFFERS)
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION)
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF)       # each server's is in its record
    SSL_CTX_set_default_passwd_cb(context, tl_no_passphrase)
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE if insecure else SSL_VERIFY_PEER, NULL)
    return context
