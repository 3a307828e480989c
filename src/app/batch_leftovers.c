#include "app/batch.h"

#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), wanted = strlen(end);
    return length >= wanted && strcmp(text + length - wanted, end) == 0;
}

/* Temporaries are called ".NAME.vdpp-XXXXXX.tmp" (base/file.h), NAME being the output's and its extension. */
static bool is_temporary_of(const char *entry, const char *output) {
    const char *slash = strrchr(output, '/'), *name = slash ? slash + 1 : output;
    const char *mark = strstr(entry, ".vdpp-");
    return entry[0] == '.' && mark && ends_with(entry, ".tmp") &&
           strncmp(entry + 1, name, strnlen(name, (size_t)(mark - entry - 1))) == 0;
}

/* A file, or a folder of frames. */
static void remove_entry(int folder, const char *name) {
    if (unlinkat(folder, name, 0) == 0)
        return;
    int inner = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *stream = inner >= 0 ? fdopendir(inner) : NULL;
    if (!stream)
        return;
    for (struct dirent *entry; (entry = readdir(stream));)
        unlinkat(inner, entry->d_name, 0);
    closedir(stream);
    unlinkat(folder, name, AT_REMOVEDIR);
}

static void remove_in_folder_of(const char *output) {
    char folder[VD_PATH_CAP] = ".";
    const char *slash = strrchr(output, '/');
    if (slash)
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - output) + 1, output);
    DIR *stream = opendir(folder);
    if (!stream)
        return;
    for (struct dirent *entry; (entry = readdir(stream));)
        if (is_temporary_of(entry->d_name, output))
            remove_entry(dirfd(stream), entry->d_name);
    closedir(stream);
}

void vd_batch_remove_temporaries(const vd_batch *batch) {
    for (int i = 0; i < batch->sample_count; i++)
        remove_in_folder_of(batch->samples[i].output);
}
