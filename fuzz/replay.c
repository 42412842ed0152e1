/* Runs inputs without a fuzzer, with any compiler: replay TARGET FILE... A broken rule ends it, after the input's name.
 * In a core with planted defects the environment variable FUZZ_PLANTED chooses one by its number; 0 is none. */
#include "main.c"

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct bytes data = {0};
    uint8_t piece[4096];
    size_t n;
    if (!file) {
        perror(path);
        exit(2);
    }
    while ((n = fread(piece, 1, sizeof piece, file)) > 0)
        bytes_append(&data, piece, n);
    fclose(file);
    /* A copy of its exact size, so that AddressSanitizer sees a byte read too far. */
    uint8_t *exact = malloc(data.end);
    memcpy(exact, data.data, data.end);
    LLVMFuzzerTestOneInput(exact, data.end);
    free(exact);
    free(data.data);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: replay TARGET FILE...\n");
        return 2;
    }
    argv++;
#ifdef FUZZ_PLANTED
    by_planted = atoi(getenv("FUZZ_PLANTED"));
#endif
    LLVMFuzzerInitialize(&argc, &argv);
    for (argv++; *argv; argv++) {
        last_input = *argv;
        run_file(*argv);
    }
    return 0;
}
