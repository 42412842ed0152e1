/* The fuzzer's entry. One program with four targets; the name under which it is started says which: request, response,
 * chunked, conversation. See docs/testing.md. */
#include "heads.h"
#include "conversation.h"

typedef void target(struct input *input);

static const struct {
    const char *name;
    target *run;
} targets[] = {
    {"request", target_request},
    {"response", target_response},
    {"chunked", target_chunked},
    {"conversation", target_conversation},
};

static target *chosen;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = strrchr((*argv)[0], '/');
    (void)argc;
    name = name ? name + 1 : (*argv)[0];
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++) {
        if (strcmp(name, targets[i].name) == 0)
            chosen = targets[i].run;
    }
    if (!chosen) {
        fprintf(stderr, "%s: start it as request, response, chunked or conversation\n", name);
        exit(2);
    }
    tracing = getenv("FUZZ_TRACE") != NULL;
    addresses_start();
    CORE(by_init_classes)();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    struct input input = {data, length, 0};
    chosen(&input);
    return 0;
}
