/* parse: what it costs to parse a request's head, in nanoseconds, as a line of JSON.
 *
 *     parse HEAD_FILE [LIBRARY]
 *
 * fastmeta's parser is the core's own: the C that Cython made of it is included here, compiled with the flags of the
 * extension, so what is measured is the function that the loop calls, with the clearing of its record before. LIBRARY is a shared
 * object that exports llhttp (the one of Python's httptools does); llhttp runs without callbacks, as nobody can use it, so it
 * is shown in its best light. Both take turns; the figure is the median of the rounds. */
#include <Python.h>
#include "_core.c"
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 301, PARSES = 2000, HEAD_MOST = 8192 };

#define CORE(function) __pyx_f_8fastmeta_5_core_##function
#define TYPE(name) struct __pyx_t_8fastmeta_5_core_##name

static uint8_t text[HEAD_MOST];
static size_t length;
static TYPE(Buffer) *buffer;
static TYPE(HeadLimits) limits = {.head = 8192, .headers = 100, .target = 4096};

/* llhttp.h is not at hand: its records are larger than these of no version, and all zero is no callback. */
static union { max_align_t align; char bytes[1024]; } parser, settings;
static void (*llhttp_init)(void *parser, int type, const void *settings);
static int (*llhttp_execute)(void *parser, const char *data, size_t length);

__attribute__((noreturn)) static void end(const char *what)
{
    fprintf(stderr, "parse: %s\n", what);
    exit(1);
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void parse_ours(void)
{
    CORE(bf_clear_head)(buffer);
    if (CORE(h1_parse_request)(&buffer->head, text, length, &limits) != (int)length)
        end("the core refuses the head");
}

static void parse_llhttp(void)
{
    llhttp_init(&parser, 1 /* HTTP_REQUEST */, &settings);
    if (llhttp_execute(&parser, (const char *)text, length) != 0 /* HPE_OK */)
        end("llhttp refuses the head");
}

static double measure(void (*parse)(void))
{
    double start = now_ns();
    for (int i = 0; i < PARSES; i++) {
        /* The compiler must not see that the bytes are the same as last time. */
        __asm__ volatile("" : : "r"(text) : "memory");
        parse();
    }
    return (now_ns() - start) / PARSES;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    static double ours[ROUNDS], theirs[ROUNDS];
    if (argc < 2 || argc > 3)
        end("usage: parse HEAD_FILE [LIBRARY]");
    FILE *file = fopen(argv[1], "rb");
    length = file ? fread(text, 1, sizeof text, file) : 0;
    if (!length || !(buffer = calloc(1, sizeof *buffer)))
        end("no head");
    if (argc == 3) {
        void *library = dlopen(argv[2], RTLD_LAZY | RTLD_LOCAL);
        if (library) {
            *(void **)&llhttp_init = dlsym(library, "llhttp_init");
            *(void **)&llhttp_execute = dlsym(library, "llhttp_execute");
        }
    }
    CORE(by_init_classes)();
    for (int i = 0; i < ROUNDS; i++) {
        ours[i] = measure(parse_ours);
        if (llhttp_init && llhttp_execute)
            theirs[i] = measure(parse_llhttp);
    }
    printf("{\"head_bytes\": %zu, \"fastmeta\": %.1f, \"llhttp\": ", length, median(ours));
    if (llhttp_init && llhttp_execute)
        printf("%.1f}\n", median(theirs));
    else
        printf("null}\n");
    return 0;
}
