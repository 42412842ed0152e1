# What the core uses of libc, Linux and OpenSSL. Declarations only: nothing here owns anything.

from libc.errno cimport (
    EAFNOSUPPORT, EAGAIN, ECONNABORTED, ECONNRESET, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO,
    ETIMEDOUT, errno,
)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen


cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    cdef struct tm:
        pass
    time_t timegm(tm *broken_down)
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    cdef struct tm:
        pass
    enum: CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *value)
    int nanosleep(const timespec *wanted, timespec *left)
    time_t time(time_t *value)
    tm *gmtime_r(const time_t *value, tm *result)
    size_t strftime(char *text, size_t capacity, const char *format, const tm *value)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t read(int fd, void *data, size_t length)
    ssize_t write(int fd, const void *data, size_t length)
    int getpid()

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *data, size_t length, unsigned int flags)

cdef extern from "<sys/eventfd.h>" nogil:
    enum: EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int start, int flags)

cdef extern from "<sys/timerfd.h>" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    enum: TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *value, itimerspec *old)

cdef extern from "<sys/epoll.h>" nogil:
    # The kernel packs epoll_event on x86-64: the layout must come from this header.
    ctypedef union epoll_data_t:
        void *ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t
    cdef struct sockaddr:
        sa_family_t sa_family
    cdef struct sockaddr_storage:
        sa_family_t ss_family
    cdef struct linger:
        int l_onoff
        int l_linger
    enum: AF_INET, AF_INET6, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, MSG_PEEK, SHUT_WR
    ctypedef unsigned int uid_t
    ctypedef unsigned int gid_t
    cdef struct ucred:
        uid_t uid
        gid_t gid
    enum: SOL_SOCKET, SO_ERROR, SO_LINGER, SO_PEERCRED, SO_RCVBUF
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t length)
    int accept4(int fd, sockaddr *address, socklen_t *length, int flags)
    ssize_t recv(int fd, void *data, size_t length, int flags)
    ssize_t send(int fd, const void *data, size_t length, int flags)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        sa_family_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in6:
        sa_family_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    enum: IPPROTO_TCP
    uint16_t htons(uint16_t value)

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_NODELAY, TCP_QUICKACK

cdef extern from "<arpa/inet.h>" nogil:
    enum: INET6_ADDRSTRLEN
    const char *inet_ntop(int family, const void *source, char *text, socklen_t capacity)
    int inet_pton(int family, const char *text, void *result)

cdef extern from "<sys/un.h>" nogil:
    cdef struct sockaddr_un:
        sa_family_t sun_family
        char sun_path[108]
    enum: AF_UNIX

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_MD:
        pass
    const EVP_MD *EVP_sha256()

cdef extern from "<openssl/hmac.h>" nogil:
    unsigned char *HMAC(const EVP_MD *digest, const void *key, int key_length, const unsigned char *data,
                        size_t length, unsigned char *result, unsigned int *result_length)

cdef extern from "<openssl/crypto.h>" nogil:
    void OPENSSL_cleanse(void *data, size_t length)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_error()
    const char *ERR_reason_error_string(unsigned long error)

cdef extern from "<openssl/x509v3.h>" nogil:
    enum: X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
    ctypedef struct X509:
        pass
    ctypedef struct ASN1_TIME:
        pass
    const ASN1_TIME *X509_get0_notAfter(const X509 *certificate)
    int ASN1_TIME_to_tm(const ASN1_TIME *time, tm *broken_down)

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct X509_VERIFY_PARAM:
        pass
    ctypedef int (*pem_password_cb)(char *text, int size, int writes, void *data) noexcept nogil
    enum: SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_SYSCALL, SSL_ERROR_ZERO_RETURN
    enum: SSL_MODE_ENABLE_PARTIAL_WRITE, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER, SSL_MODE_RELEASE_BUFFERS
    enum: SSL_SENT_SHUTDOWN, SSL_RECEIVED_SHUTDOWN, SSL_VERIFY_NONE, SSL_VERIFY_PEER, SSL_FILETYPE_PEM
    enum: SSL_SESS_CACHE_OFF, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_COMPRESSION, TLS1_2_VERSION
    enum: X509_V_OK
    const SSL_METHOD *TLS_client_method()
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method)
    int SSL_CTX_up_ref(SSL_CTX *context)
    void SSL_CTX_free(SSL_CTX *context)
    int SSL_CTX_set_min_proto_version(SSL_CTX *context, int version)
    long SSL_CTX_set_mode(SSL_CTX *context, long mode)
    uint64_t SSL_CTX_set_options(SSL_CTX *context, uint64_t options)
    long SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode)
    void SSL_CTX_set_default_passwd_cb(SSL_CTX *context, pem_password_cb callback)
    void SSL_CTX_set_verify(SSL_CTX *context, int mode, void *callback)
    int SSL_CTX_load_verify_locations(SSL_CTX *context, const char *file, const char *folder)
    int SSL_CTX_set_default_verify_paths(SSL_CTX *context)
    int SSL_CTX_use_certificate_chain_file(SSL_CTX *context, const char *file)
    int SSL_CTX_use_PrivateKey_file(SSL_CTX *context, const char *file, int kind)
    int SSL_CTX_check_private_key(const SSL_CTX *context)
    X509 *SSL_CTX_get0_certificate(const SSL_CTX *context)
    SSL *SSL_new(SSL_CTX *context)
    void SSL_free(SSL *tls)
    int SSL_set_fd(SSL *tls, int fd)
    int SSL_set_session(SSL *tls, SSL_SESSION *session)
    SSL_SESSION *SSL_get1_session(SSL *tls)
    int SSL_SESSION_is_resumable(const SSL_SESSION *session)
    void SSL_SESSION_free(SSL_SESSION *session)
    int SSL_set_tlsext_host_name(SSL *tls, const char *name)
    X509_VERIFY_PARAM *SSL_get0_param(SSL *tls)
    int X509_VERIFY_PARAM_set1_host(X509_VERIFY_PARAM *parameters, const char *name, size_t length)
    int X509_VERIFY_PARAM_set1_ip_asc(X509_VERIFY_PARAM *parameters, const char *address)
    void X509_VERIFY_PARAM_set_hostflags(X509_VERIFY_PARAM *parameters, unsigned int flags)
    int SSL_get_verify_mode(const SSL *tls)
    long SSL_get_verify_result(const SSL *tls)
    const char *X509_verify_cert_error_string(long error)
    int SSL_connect(SSL *tls)
    int SSL_shutdown(SSL *tls)
    void SSL_set_shutdown(SSL *tls, int mode)
    void SSL_set_read_ahead(SSL *tls, int yes)
    int SSL_read(SSL *tls, void *data, int length)
    int SSL_peek(SSL *tls, void *data, int length)
    int SSL_write(SSL *tls, const void *data, int length)
    int SSL_has_pending(const SSL *tls)
    int SSL_get_error(const SSL *tls, int result)

cdef extern from * nogil:
    """
    /* In a process with threads glibc makes each of these a place where pthread_cancel may end the thread, which
     * costs more than the rest of the wrapper (pthreads(7), "Cancellation points"). Nobody cancels a loop. The fuzzer
     * has its own kernel, sanitizers their own wrappers. */
    #if defined(__x86_64__) && !defined(recv) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    #include <sys/syscall.h>
    #define recv(fd, data, length, flags) \\
        ((ssize_t)syscall(SYS_recvfrom, (long)(fd), data, (size_t)(length), (long)(flags), NULL, NULL))
    #define send(fd, data, length, flags) \\
        ((ssize_t)syscall(SYS_sendto, (long)(fd), data, (size_t)(length), (long)(flags), NULL, 0L))
    #define accept4(fd, address, length, flags) \\
        ((int)syscall(SYS_accept4, (long)(fd), address, length, (long)(flags)))
    #define epoll_wait(epoll, events, most, timeout_ms) \\
        ((int)syscall(SYS_epoll_wait, (long)(epoll), events, (long)(most), (long)(timeout_ms)))
    #define close(fd) ((int)syscall(SYS_close, (long)(fd)))
    #endif
    """


cdef extern from * nogil:
    """
    /* Counters have one writer (the loop's thread); readers in other threads want no torn value, and no order. */
    #define at_count(counter, n) \\
        __atomic_store_n((counter), __atomic_load_n((counter), __ATOMIC_RELAXED) + (n), __ATOMIC_RELAXED)
    #define at_uncount(counter, n) \\
        __atomic_store_n((counter), __atomic_load_n((counter), __ATOMIC_RELAXED) - (n), __ATOMIC_RELAXED)
    #define at_read(counter) __atomic_load_n((counter), __ATOMIC_RELAXED)
    /* Ring indices: what was written before the release is seen after the acquire. */
    #define at_load(index) __atomic_load_n((index), __ATOMIC_ACQUIRE)
    #define at_store(index, value) __atomic_store_n((index), (value), __ATOMIC_RELEASE)
    #define by_likely(x) ((int)__builtin_expect(!!(x), 1))
    #define by_unlikely(x) ((int)__builtin_expect(!!(x), 0))
    #define TM_NEVER ((uint64_t)1 << 62)
    #define by_count_zeros(word) ((unsigned int)__builtin_ctzll(word))
    #define by_bits(word) (64 - __builtin_clzll(word))
    #define by_set_errno(value) (errno = (value))
    /* Records of each kind that are kept for reuse: none where a sanitizer watches for the use of what was freed. */
    #if defined(__has_feature)
    #if __has_feature(address_sanitizer)
    #define __SANITIZE_ADDRESS__ 1
    #endif
    #endif
    #ifdef __SANITIZE_ADDRESS__
    #define ST_KEEP 0
    #else
    #define ST_KEEP 64
    #endif
    """
    const uint32_t ST_KEEP
    void at_count(uint64_t *counter, uint64_t n)
    void at_uncount(uint64_t *counter, uint64_t n)
    uint64_t at_read(const uint64_t *counter)
    uint64_t at_load(const uint64_t *index)
    void at_store(uint64_t *index, uint64_t value)
    const uint64_t TM_NEVER
    bint by_likely(bint condition)
    bint by_unlikely(bint condition)
    unsigned int by_count_zeros(unsigned long long word)
    int by_bits(unsigned long long word)
    void by_set_errno(int value)
