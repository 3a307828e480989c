/* Runs a fuzz harness over every file of the folders named as arguments: what clang's libFuzzer does with
 * -runs=0, for any compiler. */
#include "base/file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static int run_file(const char *path) {
    char *bytes;
    size_t count;
    vd_error err;
    if (vd_file_read(path, "seed", 64 << 20, &bytes, &count, &err) != VD_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)bytes, count);
    free(bytes);
    return 0;
}

static int run_folder(const char *path) {
    struct dirent **entries;
    int failed = 0, count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char file[VD_PATH_CAP];
        int length = snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            failed += length >= (int)sizeof file || run_file(file);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    printf("%s: %d entries, %d failed\n", path, count, failed);
    return failed > 0 || count <= 2; /* a folder without seeds tests nothing */
}

int main(int argc, char **argv) {
    int failed = argc < 2;
    for (int i = 1; i < argc; i++)
        failed |= run_folder(argv[i]);
    return failed;
}
