/* What all parts of the harness use: complaining, reading the input, byte queues. */
#ifndef FUZZ_COMMON_H
#define FUZZ_COMMON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Set FUZZ_TRACE=1 to see a conversation step by step. */
static bool tracing;

__attribute__((format(printf, 1, 2))) static void trace(const char *format, ...)
{
    if (!tracing)
        return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* The name of the input that runs, when it is replayed. */
static const char *last_input;

/* A rule is broken: abort() is what the fuzzer records as a crash. */
__attribute__((noreturn, format(printf, 1, 2))) static void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (last_input)
        fprintf(stderr, "%s: ", last_input);
    fputs("RULE BROKEN: ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    abort();
}

/* The input that decides everything; at its end it gives zeros. */
struct input {
    const uint8_t *data;
    size_t length;
    size_t at;
};

static uint8_t next_byte(struct input *input)
{
    return input->at < input->length ? input->data[input->at++] : 0;
}

static bool is_over(const struct input *input)
{
    return input->at >= input->length;
}

/* Most bytes mean themselves, some mean the sizes around which buffers and bounds lie. */
static size_t next_amount(struct input *input)
{
    static const uint32_t sizes[] = {
        200,   255,   256,   257,   300,   400,   511,   512,   600,   800,   1000,  1023,  1024,  1500,
        2000,  2048,  3000,  4000,  4095,  4096,  4097,  5000,  6000,  7000,  8000,  8191,  8192,  8193,
        9000,  12000, 13999, 14000, 14001, 16000, 16239, 16240, 16256, 16383, 16384, 16385, 20000, 32768,
        40000, 65391, 65392, 65535, 65536, 65537, 70000, 90000, 98303, 98304, 98305, 120000, 150000, 200000,
    };
    uint8_t code = next_byte(input);
    return code < 200 ? code : sizes[code - 200];
}

/* A queue of bytes. */
struct bytes {
    uint8_t *data;
    size_t start, end, room;
};

static size_t bytes_length(const struct bytes *queue)
{
    return queue->end - queue->start;
}

static uint8_t *bytes_append(struct bytes *queue, const void *data, size_t length)
{
    if (queue->start == queue->end)
        queue->start = queue->end = 0;
    if (!queue->data || queue->end + length > queue->room) {
        queue->room = (queue->end + length) * 2 + 16;
        queue->data = realloc(queue->data, queue->room);
    }
    uint8_t *place = queue->data + queue->end;
    if (length && data)
        memcpy(place, data, length);
    queue->end += length;
    return place;
}

static void bytes_clear(struct bytes *queue)
{
    queue->start = queue->end = 0;
    if (queue->room > 1 << 20) {
        free(queue->data);
        memset(queue, 0, sizeof *queue);
    }
}

__attribute__((format(printf, 2, 3))) static void bytes_print(struct bytes *queue, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text)
        abort();
    bytes_append(queue, text, (size_t)length);
}

#endif
