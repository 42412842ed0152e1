/* Leaves a holder behind: what Neutron's process manager watches and ends. It keeps the sockets open while no agent runs, and
 * gives them to every agent that connects to it (hold.c). As long as it lives, its connection to the agent does: its end is
 * how the agent learns that the proxy has been ended, by whatever signal.
 *
 * SIGTERM and SIGKILL end it without a word, so the name of its socket stays: the agent, or the next one, removes that. */

#include "hold.h"
#include "stand_in.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FOLDER "holders"
#define PROGRAM "fastmeta-holder"

enum {
    WAITING = 8, /* agents that may wait for their turn; there is one, as a rule */
    HIGH = 64,   /* descriptors above those that a holder begins with */
};

_Static_assert((int)MAX_BINDS <= (int)HOLD_MAX_SOCKETS, "a holder has all sockets");

static char program[MAX_PATH];
static char told[MAX_MESSAGE + 64];

/* Where our own program is, so is the holder's; this is asked while the file is where it was. */
static void find_program(void)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - sizeof(PROGRAM) - 1);
    char *slash;
    program[length < 0 ? 0 : length] = 0;
    slash = strrchr(program, '/');
    strcpy(slash == NULL ? program : slash + 1, PROGRAM);
}

static void set_signals(void)
{
    static const int usual[] = {SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGCHLD};
    sigset_t none;
    sigemptyset(&none);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
        signal(usual[i], SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* `ip netns exec` has made a mount namespace for us, which every holder would keep; its cost grows with the number of
 * namespaces. Back to that of whoever started us. Where that cannot be we stay: it costs memory only. */
static void leave_mount_namespace(pid_t parent)
{
    struct stat ours;
    struct stat theirs;
    char path[32];
    int fd;
    if (parent <= 0)
        return; /* it is in another PID namespace */
    snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)parent);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &theirs) == 0 && stat("/proc/self/ns/mnt", &ours) == 0 && theirs.st_ino != ours.st_ino)
        (void)!setns(fd, CLONE_NEWNS);
    close(fd);
}

/* Under another name first: who sees it can connect. */
static int open_own_socket(const char *name, uid_t *owner)
{
    struct sockaddr_un fresh = {.sun_family = AF_UNIX};
    char final[sizeof(FOLDER) + MAX_NAME];
    struct stat status;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || stat(FOLDER, &status) < 0)
        return -1;
    *owner = status.st_uid;
    snprintf(final, sizeof(final), FOLDER "/%s", name);
    snprintf(fresh.sun_path, sizeof(fresh.sun_path), FOLDER "/.%s", name);
    /* Nobody else gets into the folder; the agent's user, which need not be root, must be able to connect. */
    umask(0);
    if (bind(fd, (struct sockaddr *)&fresh, sizeof(fresh)) < 0)
        return -1;
    if (listen(fd, WAITING) < 0 || rename(fresh.sun_path, final) < 0) {
        unlink(fresh.sun_path);
        return -1;
    }
    return fd;
}

/* Each to the number that the holder expects it at, and /dev/null to the standard ones. */
static bool arrange(const struct hand_over *over, int listener, int connection, int *ready)
{
    int from[HOLD_SOCKETS + MAX_BINDS];
    size_t count = HOLD_SOCKETS + over->socket_n;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    from[0] = from[1] = from[2] = null;
    from[HOLD_LISTENER] = listener;
    from[HOLD_CONNECTION] = connection < 0 ? null : connection;
    for (size_t i = 0; i < over->socket_n; i++)
        from[HOLD_SOCKETS + i] = over->sockets[i];
    *ready = fcntl(*ready, F_DUPFD_CLOEXEC, HIGH);
    for (size_t i = 0; i < count; i++)
        if ((from[i] = fcntl(from[i], F_DUPFD, HIGH)) < 0)
            return false;
    for (size_t i = 0; i < count; i++)
        if (dup2(from[i], (int)i) < 0)
            return false;
    if (connection < 0)
        close(HOLD_CONNECTION);
    return *ready >= 0 && close_range((unsigned)count, (unsigned)*ready - 1, 0) == 0 &&
           close_range((unsigned)*ready + 1, ~0u, 0) == 0;
}

static void be_holder(const struct hand_over *over, const struct held *held, char **arguments, int ready)
{
    char *environment[] = {told, NULL};
    snprintf(told, sizeof(told), HOLD_VARIABLE "%u %d %d %s", (unsigned)held->owner, held->socket_n, held->connection >= 0,
             over->message);
    if (program[0] == '/')
        execve(program, arguments, environment);
    close(ready);
    madvise(scratch, sizeof(scratch), MADV_DONTNEED);
    hold(held);
}

pid_t holder_leave(const struct hand_over *over, const char *control_dir, int connection, char **arguments,
                   char said[MAX_SAID])
{
    pid_t parent = getppid();
    int ready[2];
    int error = 0;
    pid_t child;
    find_program();
    if (pipe2(ready, O_CLOEXEC) < 0) {
        say(said, "pipe: %s", strerror(errno));
        return -1;
    }
    child = fork();
    if (child == 0) {
        struct held held = {.message = over->message, .length = over->length, .socket_n = (int)over->socket_n};
        int listener;
        set_signals();
        setsid();
        leave_mount_namespace(parent);
        listener = chdir(control_dir) < 0 ? -1 : open_own_socket(over->holder, &held.owner);
        if (listener >= 0 && chdir("/") == 0 && arrange(over, listener, connection, &ready[1])) {
            held.connection = connection < 0 ? -1 : HOLD_CONNECTION;
            be_holder(over, &held, arguments, ready[1]);
        }
        error = errno;
        (void)!write(ready[1], &error, sizeof(error));
        _exit(1);
    }
    close(ready[1]);
    if (child < 0) {
        say(said, "fork: %s", strerror(errno));
    } else if (read(ready[0], &error, sizeof(error)) != 0) {
        say(said, "the holder cannot begin: %.400s/" FOLDER ": %s", control_dir, strerror(error));
        child = -1;
    }
    close(ready[0]);
    return child;
}
