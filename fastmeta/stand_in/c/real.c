/* Executes the real haproxy: the one of the options, else the first on PATH that is not us, and then where distributions have
 * it; after dpkg-divert it is called haproxy.distrib. */

#include "stand_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define VARIABLE "FASTMETA_STAND_IN_PID"
#define FOLDERS "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

static bool is_other_program(const char *path)
{
    struct stat ours;
    struct stat theirs;
    return stat(path, &theirs) == 0 && S_ISREG(theirs.st_mode) && access(path, X_OK) == 0 &&
           stat("/proc/self/exe", &ours) == 0 && (ours.st_dev != theirs.st_dev || ours.st_ino != theirs.st_ino);
}

static void try_folders(const char *folders, char **arguments)
{
    static const char *const names[] = {"haproxy", "haproxy.distrib"};
    char path[MAX_PATH];
    while (*folders) {
        size_t length = strcspn(folders, ":");
        for (size_t i = 0; folders[0] == '/' && i < sizeof(names) / sizeof(names[0]); i++) {
            int written = snprintf(path, sizeof(path), "%.*s/%s", (int)length, folders, names[i]);
            if (written > 0 && (size_t)written < sizeof(path) && is_other_program(path))
                execv(path, arguments);
        }
        folders += length + (folders[length] == ':');
    }
}

void real_execute(const struct options *options, char **arguments)
{
    const char *before = getenv(VARIABLE);
    const char *folders = getenv("PATH");
    char ours[16];
    snprintf(ours, sizeof(ours), "%d", (int)getpid());
    /* A copy of us has executed us: we would go on for ever. A real haproxy's children have other numbers. */
    if (before != NULL && strcmp(before, ours) == 0)
        return;
    setenv(VARIABLE, ours, 1);
    if (options->haproxy[0] != 0) {
        execv(options->haproxy, arguments);
        return;
    }
    if (folders != NULL)
        try_folders(folders, arguments);
    try_folders(FOLDERS, arguments);
}
