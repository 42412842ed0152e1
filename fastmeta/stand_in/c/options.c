/* What the operator wants of the stand-in: a file of lines `name = value`. Neutron's agents start us by sudo, rootwrap or a
 * daemon of oslo.privsep, which leave nothing of anybody's environment; the variable is for who starts us by hand. */

#include "stand_in.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VARIABLE "FASTMETA_STAND_IN_CONF"
#define PATH "/etc/fastmeta/stand-in.conf"
#define CONTROL_DIR "/run/fastmeta"

static char *trimmed(char *text)
{
    char *end = text + strlen(text);
    text += strspn(text, " \t\r");
    while (end > text && strchr(" \t\r", end[-1]) != NULL)
        *--end = 0;
    return text;
}

static bool path(char to[MAX_PATH], const char *value)
{
    if (value[0] != '/' || strlen(value) >= MAX_PATH)
        return false;
    strcpy(to, value);
    return true;
}

static bool set(struct options *options, const char *name, const char *value)
{
    static const char *const choices[] = {"fail", "haproxy", "hold"};
    if (strcmp(name, "control_dir") == 0)
        return path(options->control_dir, value);
    if (strcmp(name, "haproxy") == 0)
        return path(options->haproxy, value);
    if (strcmp(name, "when_away") == 0)
        for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
            if (strcmp(value, choices[i]) == 0) {
                options->when_away = (enum away)i;
                return true;
            }
    return false;
}

/* What is read is what was looked at; -1: said says why, "" when there is no such file. */
static ssize_t read_trusted(const char *name, char *content, char said[MAX_SAID])
{
    struct stat status;
    ssize_t length = -1;
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    said[0] = 0;
    if (fd < 0) {
        if (errno != ENOENT)
            say(said, "%s: %s", name, strerror(errno));
        return -1;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        say(said, "%s: not a regular file", name);
    else if ((status.st_uid != 0 && status.st_uid != geteuid()) || (status.st_mode & (S_IWGRP | S_IWOTH)))
        say(said, "%s: must belong to root, and nobody else may be able to write it", name);
    else if ((length = read(fd, content, MAX_FILE)) < 0 || length == MAX_FILE) {
        say(said, "%s: %s", name, length < 0 ? strerror(errno) : "too long");
        length = -1;
    }
    close(fd);
    return length;
}

bool options_read(struct options *options, char said[MAX_SAID])
{
    char *content = scratch;
    const char *named = getenv(VARIABLE);
    const char *name = named != NULL && named[0] != 0 ? named : PATH;
    ssize_t length;
    unsigned number = 0;
    strcpy(options->control_dir, CONTROL_DIR);
    options->haproxy[0] = 0;
    options->when_away = AWAY_FAIL;
    length = read_trusted(name, content, said);
    if (length < 0)
        return said[0] == 0;
    content[length] = 0;
    for (char *line = content, *next; line != NULL; line = next) {
        char *equals;
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = 0;
        number++;
        line = trimmed(line);
        if (line[0] == 0 || line[0] == '#')
            continue;
        equals = strchr(line, '=');
        if (equals != NULL)
            *equals = 0;
        if (equals == NULL || !set(options, trimmed(line), trimmed(equals + 1))) {
            say(said, "%s:%u: not control_dir or haproxy with an absolute path, nor when_away = fail, haproxy or hold", name,
                number);
            return false;
        }
    }
    return true;
}
