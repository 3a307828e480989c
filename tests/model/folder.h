/* A temporary folder for a test, small files in it, and the look at an error that all tests of this area
 * share. */
#ifndef VD_TESTS_MODEL_FOLDER_H
#define VD_TESTS_MODEL_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct folder {
    char path[64];
} folder;

static inline folder folder_make(void) {
    folder f = {"/tmp/vdpp-test-XXXXXX"};
    assert_non_null(mkdtemp(f.path));
    return f;
}

static inline int remove_entry(const char *path, const struct stat *s, int type, struct FTW *where) {
    (void)s, (void)type, (void)where;
    return remove(path);
}

static inline void folder_remove(const folder *f) {
    assert_int_equal(nftw(f->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* The result lives until the eighth call after it. */
static inline const char *folder_path(const folder *f, const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", f->path, name);
    return path;
}

static inline void folder_write(const folder *f, const char *name, const void *bytes, size_t count) {
    vd_error err;
    if (vd_file_write(folder_path(f, name), bytes, count, true, &err) != VD_OK)
        fail_msg("%s", err.message);
}

static inline void folder_text(const folder *f, const char *name, const char *text) {
    folder_write(f, name, text, strlen(text));
}

/* Of this thread, so that a busy machine does not fail a test. */
static inline double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void check_time(const char *label, double seconds, double limit) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    limit *= 20;
#endif
    if (seconds > limit)
        fail_msg("%s: took %.0f ms", label, seconds * 1e3);
}

/* The call that took `seconds` failed with `expected`, in time, on one line that names `thing` and the
 * `reason`. */
static inline void check_refusal(const char *label, vd_code code, vd_code expected, const vd_error *err,
                                 const char *thing, const char *reason, double seconds) {
    if (code != expected)
        fail_msg("%s: code %d, expected %d (%s)", label, code, expected,
                 code == VD_OK ? "accepted" : err->message);
    assert_int_equal(err->code, expected);
    if (!strstr(err->message, thing) || !strstr(err->message, reason) || strchr(err->message, '\n'))
        fail_msg("%s: the message should name '%s' and '%s': %s", label, thing, reason, err->message);
    check_time(label, seconds, 0.05);
}

#endif
