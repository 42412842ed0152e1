/* Lines of a configuration, cut into words. */

#ifndef WORDS_H
#define WORDS_H

#include "stand_in.h"

enum { MAX_WORDS = 16 };

struct words {
    char *at[MAX_WORDS];
    size_t n;
};

/* False if it has too many, or characters that mean something else to haproxy. */
bool cut(struct words *words, char *line);

/* Whether the word at this place is that one. */
bool is(const struct words *words, size_t place, const char *word);

/* Whether there are so many, and the first two are these (NULL: whatever). */
bool are(const struct words *words, const char *first, const char *second, size_t n);

/* A decimal number from 1 to UINT32_MAX / 1000 with this suffix; 0: it is none. */
uint32_t number(const char *text, const char *suffix);

/* That of <name><number>s); 0: it is not that. */
uint32_t seconds_in(const char *text, const char *name);

/* In the form that Neutron gives it, and nothing behind it. */
bool is_uuid(const char *text);

#endif
