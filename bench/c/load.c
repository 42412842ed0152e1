/* load: guests that ask through a proxy, check every answer, and tell what they saw as one line of JSON.
 *
 *     load --port N --mode keep|close|fresh [--connections N] [--seconds S] [--count N] [--warmup N] [--body BYTES]
 *          [--paused]
 *
 * keep   each guest asks again and again on one connection.
 * close  each request on a new connection, with "Connection: close"; it is complete when the proxy has closed it.
 * fresh  each request on a new connection that could be kept, which the guest closes after one answer: cloud-init's way.
 *
 * Every guest has one request under way at a time (a closed loop: a slow proxy is asked less often, so the latencies here
 * do not tell how a queue would grow). A run ends after SECONDS or COUNT requests, whichever comes first; requests under way
 * then are waited for. With --paused the steps are told apart for one who measures: "warm" is printed when the WARMUP
 * requests are done, each line on the standard input starts a run (connections stay open in between), and the end of the
 * standard input is the end. */
#define _GNU_SOURCE
#include "common.h"
#include <getopt.h>
#include <strings.h>

enum mode { KEEP, CLOSE, FRESH };
enum state { IDLE, CONNECTING, HEAD, BODY, END };
enum problem { CONNECT, STATUS, CONTENT, CLOSED, TIMEOUT, PROBLEMS };

/* Latencies: 32 steps for each power of two of nanoseconds, so 3 % apart. */
enum { STEPS = 32, OCTAVES = 40, GIVE_UP_AFTER = 1000 };
static const uint64_t check_every_ns = 100000000u;
static const uint64_t patience_ns = 20u * 1000000000ull;

struct conn {
    int fd;
    enum state state;
    bool server_closes;
    uint64_t started;
    size_t body_seen;
    size_t head_length;
    char head[4096]; /* only of a head that did not come in one piece */
};

static const char *const problem_names[PROBLEMS] = {"connect", "status", "content", "closed", "timeout"};

static int epoll;
static enum mode mode;
static struct sockaddr_in proxy;
static const char *request;
static size_t request_length;
static char *body;
static size_t body_bytes = 2048;
static char buffer[65536];

static uint64_t issued, limit, completed, reconnects, in_progress, consecutive_errors;
static uint64_t errors[PROBLEMS];
static uint64_t histogram[OCTAVES * STEPS];
static uint64_t deadline, last_completion;
static bool stopping, gave_up;

static size_t bucket_of(uint64_t ns)
{
    if (ns < STEPS)
        return (size_t)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
    size_t bucket = (size_t)(octave - 4) * STEPS + (size_t)((ns >> (octave - 5)) & (STEPS - 1));
    return bucket < OCTAVES * STEPS ? bucket : OCTAVES * STEPS - 1;
}

static uint64_t middle_of(size_t bucket)
{
    if (bucket < STEPS)
        return bucket;
    unsigned octave = (unsigned)(bucket / STEPS) + 4;
    return ((uint64_t)(STEPS + bucket % STEPS) << (octave - 5)) + ((uint64_t)1 << (octave - 5)) / 2;
}

static double percentile_us(double share)
{
    uint64_t wanted = (uint64_t)(share * (double)completed), seen = 0;
    for (size_t i = 0; i < OCTAVES * STEPS; i++) {
        seen += histogram[i];
        if (seen > wanted || (seen && seen == completed))
            return (double)middle_of(i) / 1000;
    }
    return 0;
}

static void disconnect(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void fail(struct conn *c, enum problem problem)
{
    errors[problem]++;
    in_progress--;
    c->state = IDLE;
    disconnect(c);
    if (++consecutive_errors == GIVE_UP_AFTER)
        stopping = gave_up = true;
}

static void succeed(struct conn *c)
{
    last_completion = now_ns();
    histogram[bucket_of(last_completion - c->started)]++;
    completed++;
    consecutive_errors = 0;
    in_progress--;
    c->state = IDLE;
    if (mode != KEEP)
        disconnect(c);
    else if (c->server_closes) {
        disconnect(c);
        reconnects++;
    }
}

static void wait_for(struct conn *c, int operation, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void send_request(struct conn *c)
{
    c->state = HEAD;
    c->head_length = 0;
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        fail(c, CLOSED);
}

/* The next request of this guest, if there is to be one. */
static void begin(struct conn *c)
{
    if (stopping || issued == limit)
        return;
    issued++;
    in_progress++;
    c->started = now_ns();
    if (c->fd >= 0) {
        send_request(c);
        return;
    }
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    if (connect(c->fd, (struct sockaddr *)&proxy, sizeof proxy) == 0) {
        wait_for(c, EPOLL_CTL_ADD, EPOLLIN);
        send_request(c);
    } else if (errno == EINPROGRESS) {
        c->state = CONNECTING;
        wait_for(c, EPOLL_CTL_ADD, EPOLLOUT);
    } else
        fail(c, CONNECT);
}

static void connected(struct conn *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error) {
        fail(c, CONNECT);
        return;
    }
    wait_for(c, EPOLL_CTL_MOD, EPOLLIN);
    send_request(c);
}

/* Reads status and framing of an answer; false when they are not as they must be. */
static bool read_head(struct conn *c, const char *head, size_t length)
{
    if (length < 13 || memcmp(head, "HTTP/1.", 7) || memcmp(head + 8, " 200 ", 5)) {
        fail(c, STATUS);
        return false;
    }
    bool length_is_right = false;
    c->server_closes = false;
    const char *end = head + length;
    for (const char *line = head; line < end;) {
        if (!strncasecmp(line, "Content-Length:", 15))
            length_is_right = strtoull(line + 15, NULL, 10) == body_bytes;
        else if (!strncasecmp(line, "Connection: close", 17))
            c->server_closes = true;
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        line = newline ? newline + 1 : end;
    }
    if (!length_is_right)
        fail(c, CONTENT);
    return length_is_right;
}

/* Takes the head out of data: how many bytes of data belong to it; -1 when the request has failed. */
static ssize_t take_head(struct conn *c, const char *data, size_t n)
{
    const char *found = c->head_length ? NULL : memmem(data, n, "\r\n\r\n", 4);
    if (found) {
        size_t length = (size_t)(found - data) + 4;
        if (!read_head(c, data, length))
            return -1;
        c->state = BODY;
        c->body_seen = 0;
        return (ssize_t)length;
    }
    for (size_t i = 0; i < n; i++) {
        if (c->head_length == sizeof c->head) {
            fail(c, CONTENT);
            return -1;
        }
        c->head[c->head_length++] = data[i];
        if (c->head_length >= 4 && !memcmp(c->head + c->head_length - 4, "\r\n\r\n", 4)) {
            if (!read_head(c, c->head, c->head_length))
                return -1;
            c->state = BODY;
            c->body_seen = 0;
            return (ssize_t)i + 1;
        }
    }
    return (ssize_t)n;
}

static void received(struct conn *c, const char *data, size_t n)
{
    if (c->state == HEAD) {
        ssize_t used = take_head(c, data, n);
        if (used < 0)
            return;
        data += used;
        n -= (size_t)used;
    }
    if (c->state == HEAD)
        return;
    if (n > body_bytes - c->body_seen || memcmp(data, body + c->body_seen, n)) {
        fail(c, CONTENT);
        return;
    }
    c->body_seen += n;
    if (c->body_seen < body_bytes)
        return;
    if (mode == CLOSE)
        c->state = END;
    else
        succeed(c);
}

static void readable(struct conn *c)
{
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (c->state == IDLE) { /* a kept-alive connection that the proxy closed between two requests, or stray bytes */
        disconnect(c);
        if (n > 0)
            errors[CONTENT]++;
        else
            reconnects++;
    } else if (n > 0)
        received(c, buffer, (size_t)n); /* in END any byte is one too many: body_seen is at its end */
    else if (n == 0 && c->state == END)
        succeed(c);
    else
        fail(c, CLOSED);
}

static void run(struct conn *conns, size_t count, uint64_t requests, double seconds)
{
    issued = completed = reconnects = consecutive_errors = 0;
    memset(errors, 0, sizeof errors);
    memset(histogram, 0, sizeof histogram);
    limit = requests;
    stopping = gave_up = false;
    uint64_t start = now_ns(), next_check = start + check_every_ns;
    deadline = start + (uint64_t)(seconds * 1e9);
    last_completion = start;
    static struct epoll_event events[BATCH];

    for (size_t i = 0; i < count; i++)
        begin(&conns[i]);
    while (in_progress || (!stopping && issued < limit)) {
        int n = epoll_wait(epoll, events, BATCH, 100);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        uint64_t now = now_ns();
        if (now >= deadline)
            stopping = true;
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c->state == CONNECTING)
                connected(c);
            else
                readable(c);
            if (c->state == IDLE)
                begin(c);
        }
        if (now < next_check)
            continue;
        /* Now and then: give up on what takes too long, and let guests whose request failed at once try again. */
        next_check = now + check_every_ns;
        for (size_t i = 0; i < count; i++) {
            if (conns[i].state != IDLE && now > conns[i].started + patience_ns)
                fail(&conns[i], TIMEOUT);
            if (conns[i].state == IDLE)
                begin(&conns[i]);
        }
    }

    uint64_t all = 0;
    for (int i = 0; i < PROBLEMS; i++)
        all += errors[i];
    printf("{\"requests\": %llu, \"errors\": %llu, \"error_kinds\": {", (unsigned long long)completed,
           (unsigned long long)all);
    for (int i = 0; i < PROBLEMS; i++)
        printf("%s\"%s\": %llu", i ? ", " : "", problem_names[i], (unsigned long long)errors[i]);
    printf("}, \"reconnects\": %llu, \"gave_up\": %s, \"seconds\": %.6f, ", (unsigned long long)reconnects,
           gave_up ? "true" : "false", (double)(last_completion - start) / 1e9);
    printf("\"latency_us\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}}\n",
           percentile_us(0.5), percentile_us(0.9), percentile_us(0.99), percentile_us(0.999), percentile_us(1));
}

static enum mode mode_of(const char *name)
{
    static const char *const names[] = {"keep", "close", "fresh"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i]))
            return (enum mode)i;
    fprintf(stderr, "--mode: keep, close or fresh\n");
    exit(2);
}

/* False at the end of the standard input. */
static bool wait_for_line(void)
{
    int byte;
    do
        byte = getchar();
    while (byte != EOF && byte != '\n');
    return byte == '\n';
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},    {"mode", required_argument, NULL, 'm'},
        {"connections", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},   {"warmup", required_argument, NULL, 'w'},
        {"body", required_argument, NULL, 'b'},    {"paused", no_argument, NULL, 'P'},
        {NULL, 0, NULL, 0},
    };
    long port = 0, connections = 1, count = 1L << 40, warmup = 0;
    double seconds = 3600;
    bool paused = false;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'p': port = number("--port", optarg, 1, 65535); break;
        case 'm': mode = mode_of(optarg); break;
        case 'c': connections = number("--connections", optarg, 1, 100000); break;
        case 's': seconds = strtod(optarg, NULL); break;
        case 'n': count = number("--count", optarg, 1, 1L << 40); break;
        case 'w': warmup = number("--warmup", optarg, 0, 1L << 40); break;
        case 'b': body_bytes = (size_t)number("--body", optarg, 0, 1L << 30); break;
        case 'P': paused = true; break;
        default: return 2;
        }
    if (!port || optind != argc || !(seconds > 0)) {
        fprintf(stderr, "usage: load --port N --mode keep|close|fresh [--connections N] [--seconds S] [--count N]\n"
                        "            [--warmup N] [--body BYTES] [--paused]\n");
        return 2;
    }

    proxy = loopback((uint16_t)port);
    static char text[512]; /* about what cloud-init sends: 176 bytes when keeping alive */
    int n = snprintf(text, sizeof text,
                     "GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: 169.254.169.254\r\n"
                     "User-Agent: Cloud-Init/22.4.2\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
                     "Connection: %s\r\n\r\n",
                     mode == CLOSE ? "close" : "keep-alive");
    request = text;
    request_length = (size_t)n;
    body = malloc(body_bytes + 1);
    struct conn *conns = calloc((size_t)connections, sizeof *conns);
    if (!body || !conns)
        die("malloc");
    for (size_t i = 0; i < body_bytes; i++)
        body[i] = body_byte(i);
    for (long i = 0; i < connections; i++)
        conns[i].fd = -1;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (warmup) /* has a line of JSON too; one who wants the result takes the last */
        run(conns, (size_t)connections, (uint64_t)warmup, 30);
    if (!paused) {
        run(conns, (size_t)connections, (uint64_t)count, seconds);
        return 0;
    }
    puts("warm");
    while (wait_for_line())
        run(conns, (size_t)connections, (uint64_t)count, seconds);
    return 0;
}
