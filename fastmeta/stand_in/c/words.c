/* Lines of a configuration, cut into words. */

#include "words.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void say(char said[MAX_SAID], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(said, MAX_SAID, format, arguments);
    va_end(arguments);
}

bool is_uuid(const char *text)
{
    for (size_t i = 0; i < UUID_LENGTH; i++) {
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        bool hexadecimal = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (hyphen ? text[i] != '-' : !hexadecimal)
            return false;
    }
    return text[UUID_LENGTH] == 0;
}

uint32_t number(const char *text, const char *suffix)
{
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        if (value > UINT32_MAX / 1000)
            return 0;
    }
    return at > text && strcmp(at, suffix) == 0 ? (uint32_t)value : 0;
}

uint32_t seconds_in(const char *text, const char *name)
{
    size_t length = strlen(name);
    return strncmp(text, name, length) == 0 ? number(text + length, "s)") : 0;
}

bool cut(struct words *words, char *line)
{
    words->n = 0;
    for (char *at = line; *at;) {
        while (*at == ' ' || *at == '\t')
            *at++ = 0;
        if (*at == 0)
            break;
        if (words->n == MAX_WORDS)
            return false;
        words->at[words->n++] = at;
        for (; *at && *at != ' ' && *at != '\t'; at++)
            if (strchr("\"'\\$#", *at) != NULL || (unsigned char)*at < 0x20 || *at == 0x7f)
                return false;
    }
    return true;
}

bool is(const struct words *words, size_t place, const char *word)
{
    return place < words->n && strcmp(words->at[place], word) == 0;
}

bool are(const struct words *words, const char *first, const char *second, size_t n)
{
    return words->n == n && is(words, 0, first) && (second == NULL || is(words, 1, second));
}
