/* The two sides that the core stands between. Guests ask, and read every byte that they get; Nova reads every byte that it
 * gets, and answers. Both know who asked for what, so both see at once when something goes to the wrong place:
 *
 * - A request that a guest makes has a token in its target. Its content is made of the token.
 * - An answer that Nova makes is a record: for which request on which connection, under which identity. Its number stands
 *   in its header X-Mark, and in every 16 bytes of its content, behind the byte MARK, which nobody else may send.
 *
 * Guests that send arbitrary bytes ("wild") have no tokens; marks are looked for in what they get all the same. */
#ifndef FUZZ_PEOPLE_H
#define FUZZ_PEOPLE_H

#include "entries.h"
#include "reader.h"

enum { GUESTS = 640, SERVERS = WIRES, TOKENS = 1024, RECORDS = 1024, WAITING = 32, MARK = 0xf5, CELL = 16 };

struct token {
    bool used;
    int key;
    unsigned guest;        /* serial number */
    bool wild;             /* its guest sent arbitrary bytes too: nothing is known of it */
    bool for_head, http10, expects, repeatable, malformed;
    size_t length;         /* of its content */
    unsigned seen;         /* how often it reached Nova */
    bool signed_present, signed_next; /* with which secrets */
    struct {
        bool used, signed_next;
        int place, put;
    } refused;             /* the last 403 that the core has read, of those that it may ask about again */
    uint64_t made_at;      /* messages that the loop had taken */
    struct {
        bool used;
        int put;
        uint64_t asked_at;
    } not_found;           /* the last 404 that the core has read, and did not pass on */
};

struct guest {
    bool used;
    unsigned serial;
    struct wire *wire;     /* NULL: over */
    int key;
    bool wild;
    struct bytes todo;     /* what it will send */
    uint16_t waiting[WAITING]; /* tokens whose answers have not come, oldest first */
    unsigned waiting_n;
    /* How far it has read. */
    enum { R_HEAD, R_LENGTH, R_CHUNK_SIZE, R_CHUNK, R_CHUNK_END, R_TRAILER, R_CLOSE, R_OVER } reading;
    struct bytes head;     /* of an answer, or a line of chunked coding */
    uint64_t left;         /* of the content or chunk */
    uint64_t begun_at;     /* messages that the loop had taken when the answer began */
    uint64_t begun_turn;   /* and the turn */
    int record;            /* NOBODY: not one of Nova's with a mark */
    int status;            /* of the answer that it reads */
    size_t content;        /* bytes of it so far */
    bool ends_after, no_content;
    unsigned answers;
    unsigned mark_n;       /* digits of a mark, 0: none so far */
    uint32_t mark;
    int body_token;        /* whose content is not complete */
    size_t body_made;
};

enum { F_NONE, F_LENGTH, F_CHUNKED, F_CLOSE };

struct record {
    unsigned server;       /* serial number */
    unsigned request;      /* which of its requests; 0: none had come */
    int token, key, put;
    uint64_t asked_at;     /* as the server's */
    int status, framing;
    size_t length;         /* of the content as it is announced; SIZE_MAX: not known */
    size_t made;           /* of it that was made */
    uint64_t start;        /* where in all that the server sends it begins */
    uint64_t stop;         /* and stops */
    uint64_t end;          /* the same if it is whole then, else 0 */
    bool needs_end;        /* it ends with the connection */
    bool may_ask_twice;    /* as the server's */
    bool late;             /* it came when it was not this request's turn any more: HTTP cannot tell whose it is */
    bool mixed;            /* arbitrary bytes follow it, or its end came too early */
    bool whole;            /* all of it has gone to the core */
};

struct server {
    bool used;
    unsigned serial;
    struct wire *wire;
    struct bytes todo;     /* what it will send */
    uint64_t sent;         /* bytes that have gone */
    bool end_wanted;       /* FIN after the last byte */
    bool wild;             /* it sends arbitrary bytes too */
    uint64_t dirty_at;     /* from this byte on it sent what makes the connection useless for another request */
    int place;             /* which server it is to: its place among those that Python names */
    int host;              /* what it was called in the first request; NOBODY: there was none */
    int tried_set;         /* the servers that there were when the core began to send a request */
    unsigned request_n;
    bool in_request;       /* part of one has come */
    struct bytes head;
    uint64_t body_left, body_at;
    bool tried;            /* the core has begun to send a request */
    uint64_t tried_at, tried_us; /* messages taken then, and the time */
    int token, key, put;   /* of the present request */
    uint64_t asked_at;     /* messages taken when it was begun */
    uint64_t head_ends;    /* where the head of the first answer to it does, in `sent`, if that is 404; else 0 */
    bool complete;         /* it is here */
    bool for_head, wants_content;
    bool signed_next;      /* with the next secret */
    bool may_ask_twice;    /* it may be repeated, and its identity is signed twice */
    bool refused;          /* the first answer made for it is 403 */
    unsigned answers;      /* final ones made for it */
    uint64_t answered_at;  /* where the first ends, in `sent`; 0: not whole */
};

static struct {
    struct guest guests[GUESTS];
    unsigned guest_most, guest_serial;
    struct server servers[SERVERS];
    unsigned server_most, server_serial;
    struct token tokens[TOKENS];
    unsigned token_n;
    struct record records[RECORDS];
    unsigned record_n;
    bool raw_answers; /* Nova sent arbitrary bytes somewhere */
    uint64_t turn_us; /* the time when epoll was last asked */
    uint64_t requests_at_nova, answers_at_guests;
    uint64_t requests_made;
    unsigned statuses[VALUE(CT_STATUSES) + VALUE(CT_CLASSES)]; /* whole answers that guests got, by the place of their counter */
} people;

/* Content repeats after so many bytes; a part of it that is moved, lost or repeated shows all the same, as only whole rounds
 * could go unseen. Capital letters are Nova's, small ones the guests'. */
enum { ROUND = 26 * CELL };

static void make_round(char first, unsigned number, uint8_t *to)
{
    static uint8_t letters[2][ROUND]; /* they are always the same */
    uint8_t *round = letters[first == 'A'], digits[8];
    if (!round[0]) {
        for (unsigned i = 0; i < ROUND; i++)
            round[i] = (uint8_t)(first + (i / CELL * 7 + i % CELL) % 26);
    }
    memcpy(to, round, ROUND);
    for (int i = 7; i >= 0; i--, number >>= 4)
        digits[i] = (uint8_t)"0123456789abcdef"[number & 15];
    for (unsigned cell = 0; cell < 26; cell++, to += CELL) {
        to[0] = first == 'A' ? MARK : '.';
        memcpy(to + 1, digits, 8);
    }
}

/* Makes `length` bytes of a content, from `at` on. */
static void make_content(char first, unsigned number, size_t at, uint8_t *to, size_t length)
{
    uint8_t round[ROUND];
    make_round(first, number, round);
    while (length) {
        size_t n = ROUND - at % ROUND < length ? ROUND - at % ROUND : length;
        memcpy(to, round + at % ROUND, n);
        to += n;
        at += n;
        length -= n;
    }
}

static bool is_content(char first, unsigned number, size_t at, const uint8_t *data, size_t length)
{
    uint8_t round[ROUND];
    make_round(first, number, round);
    while (length) {
        size_t n = ROUND - at % ROUND < length ? ROUND - at % ROUND : length;
        if (memcmp(data, round + at % ROUND, n) != 0)
            return false;
        data += n;
        at += n;
        length -= n;
    }
    return true;
}

#endif
