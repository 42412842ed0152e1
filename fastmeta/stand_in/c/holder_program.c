/* The holder's own program: what it is told stands in its environment. */

#include "hold.h"

#include "raw.h"

static long number(const char **at)
{
    long value = 0;
    for (; **at >= '0' && **at <= '9'; (*at)++)
        value = value * 10 + (**at - '0');
    if (**at == ' ')
        (*at)++;
    return value;
}

static const char *told(char *const *environment)
{
    for (; *environment; environment++) {
        const char *name = HOLD_VARIABLE;
        const char *text = *environment;
        while (*name && *name == *text) {
            name++;
            text++;
        }
        if (*name == 0)
            return text;
    }
    return 0;
}

static int run(char *const *environment)
{
    struct held held;
    const char *text = told(environment);
    if (text == 0)
        return 2;
    held.owner = (uid_t)number(&text);
    held.socket_n = (int)number(&text);
    held.connection = number(&text) ? HOLD_CONNECTION : -1;
    held.message = text;
    for (held.length = 0; text[held.length]; held.length++)
        ;
    if (held.socket_n < 1 || held.socket_n > HOLD_MAX_SOCKETS)
        return 2;
    hold(&held);
}

#ifdef RAW_LIBRARY
extern char **environ;

int main(void)
{
    return run(environ);
}
#else
/* stack: the number of arguments, the arguments, 0, the environment, 0. */
void begin(long *stack)
{
    raw(SYS_exit_group, run((char *const *)(stack + stack[0] + 2)), 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall begin\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tmov x0, sp\n\tbl begin\n");
#endif
#endif
