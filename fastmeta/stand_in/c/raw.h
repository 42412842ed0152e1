/* System calls. The holder's own program has no C library, which would cost each holder some 50 kB; where we do not know
 * how to call the kernel ourselves (RAW_LIBRARY), it has one all the same. */

#ifndef RAW_H
#define RAW_H

#include <sys/syscall.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define RAW_LIBRARY
#include <errno.h>
#include <unistd.h>
#endif

/* The result, or -errno. */
static inline long raw(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
    register long fourth __asm__("r10") = d;
    register long fifth __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long eighth __asm__("x8") = number;
    register long first __asm__("x0") = a;
    register long second __asm__("x1") = b;
    register long third __asm__("x2") = c;
    register long fourth __asm__("x3") = d;
    register long fifth __asm__("x4") = e;
    __asm__ volatile("svc #0"
                     : "+r"(first)
                     : "r"(eighth), "r"(second), "r"(third), "r"(fourth), "r"(fifth)
                     : "memory");
    return first;
#else
    long result = syscall(number, a, b, c, d, e);
    return result < 0 ? -errno : result;
#endif
}

#endif
