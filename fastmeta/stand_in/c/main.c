/* fastmeta-haproxy, the stand-in: Neutron's agents start it as `haproxy -f <configuration>` in the namespace of a network or
 * router. It opens what the configuration says, hands that to fastmeta, and leaves a holder behind. docs/stand-in.md.
 *
 * Everything else that haproxy may be started for is left to the real one. */

#include "stand_in.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char scratch[MAX_FILE + 4096] __attribute__((aligned(4096)));

/* As haproxy writes what ends it. */
static int fail(const char *text)
{
    dprintf(STDERR_FILENO, "[ALERT]    (%d) : fastmeta-haproxy: %s\n", (int)getpid(), text);
    return 1;
}

static enum reading read_config(const char *name, struct proxy *proxy, char said[MAX_SAID])
{
    size_t length = 0;
    ssize_t more = -1;
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return READ_FOREIGN;
    while (length < MAX_FILE && (more = read(fd, scratch + length, MAX_FILE - length)) > 0)
        length += (size_t)more;
    close(fd);
    return more == 0 ? config_read(scratch, length, proxy, said) : READ_FOREIGN;
}

static bool open_sockets(const struct proxy *proxy, struct hand_over *over, char said[MAX_SAID])
{
    for (over->socket_n = 0; over->socket_n < proxy->place_n; over->socket_n++) {
        int fd = listen_open(&proxy->places[over->socket_n], said);
        if (fd < 0)
            return false;
        over->sockets[over->socket_n] = fd;
    }
    return true;
}

/* Its folder may be that of another user than root: what is there already is not written through. */
static bool write_pid_file(const char *name, pid_t pid, char said[MAX_SAID])
{
    char text[16];
    int length = snprintf(text, sizeof(text), "%d\n", (int)pid);
    int fd;
    umask(022);
    unlink(name);
    fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd >= 0 && write(fd, text, (size_t)length) == length && close(fd) == 0)
        return true;
    say(said, "cannot write the pid file %.300s: %s", name, strerror(errno));
    return false;
}

static int stand_in(const struct proxy *proxy, const struct options *options, char **arguments)
{
    static struct hand_over over;
    char said[MAX_SAID] = "";
    char text[MAX_SAID];
    enum taken taken = TAKEN_AWAY;
    int connection = -1;
    pid_t holder;
    /* Nothing of what we have inherited may stay open in the holder. */
    if (close_range(3, ~0u, 0) < 0)
        return fail("close_range: Linux 5.9 or later is needed");
    if (!open_sockets(proxy, &over, said) || !hand_over_prepare(&over, proxy, said))
        return fail(said);
    if (chdir(options->control_dir) == 0)
        taken = hand_over_to_agent(&over, &connection, said);
    else
        say(said, "%.400s: %s", options->control_dir, strerror(errno));
    if (taken == TAKEN_AWAY && options->when_away == AWAY_HAPROXY) {
        for (size_t i = 0; i < over.socket_n; i++)
            close(over.sockets[i]);
        real_execute(options, arguments);
        return fail("fastmeta is not running, and there is no real haproxy");
    }
    if (taken == TAKEN_AWAY && options->when_away == AWAY_FAIL) {
        say(text, "fastmeta is not running (control_dir %.200s), or [fastmeta] stand_in is off: %.200s", options->control_dir,
            said);
        return fail(text);
    }
    if (taken == TAKEN_NOT)
        return fail(said);
    holder = holder_leave(&over, options->control_dir, connection, arguments, said);
    if (holder < 0)
        return fail(said);
    if (!write_pid_file(proxy->pid_file, holder, said)) {
        kill(holder, SIGKILL);
        return fail(said);
    }
    return 0;
}

int main(int count, char **arguments)
{
    static struct options options;
    static struct proxy proxy;
    char wrong[MAX_SAID] = "";
    char said[MAX_SAID] = "";
    bool usable = options_read(&options, wrong);
    if (count == 3 && strcmp(arguments[1], "-f") == 0) {
        switch (read_config(arguments[2], &proxy, said)) {
        case READ_PROXY:
            return usable ? stand_in(&proxy, &options, arguments) : fail(wrong);
        case READ_UNKNOWN:
            dprintf(STDERR_FILENO, "[WARNING]  (%d) : fastmeta-haproxy: %s: %s; it is left to the real haproxy\n", (int)getpid(),
                    arguments[2], said);
            break;
        case READ_FOREIGN:
            break;
        }
    }
    real_execute(&options, arguments);
    return fail("this is not for fastmeta, and there is no real haproxy: set haproxy in /etc/fastmeta/stand-in.conf");
}
