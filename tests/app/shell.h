/* Runs commands as a user would type them, in a folder of their own. $V is the program. */
#ifndef VD_TESTS_APP_SHELL_H
#define VD_TESTS_APP_SHELL_H

#include "must.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a command left behind; the texts are malloc'ed. */
typedef struct outcome {
    int code; /* 128 + signal when killed */
    char *out, *err;
} outcome;

static inline char *slurp(const char *path) {
    char *text;
    size_t length;
    must(vd_file_read(path, "output", 1 << 24, &text, &length, err));
    return text;
}

/* The exit code alone; streams go where the command says. */
static inline int shell(const char *command) {
    int status = system(command);
    assert_true(status != -1);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline outcome run(const char *command) {
    char line[2048];
    assert_true(snprintf(line, sizeof line, "{ %s\n} >.out 2>.err", command) < (int)sizeof line);
    outcome o = {.code = shell(line)};
    o.out = slurp(".out");
    o.err = slurp(".err");
    return o;
}

static inline void outcome_free(outcome *o) {
    free(o->out);
    free(o->err);
}

/* Fails with all that helps unless the code is right and both texts (NULL: any; "": nothing) are in the
 * streams. */
static inline void expect(const char *command, int code, const char *out, const char *err) {
    outcome o = run(command);
    bool out_right = !out || (*out ? strstr(o.out, out) != NULL : *o.out == '\0');
    bool err_right = !err || (*err ? strstr(o.err, err) != NULL : *o.err == '\0');
    if (o.code != code || !out_right || !err_right)
        fail_msg("%s\nexit code %d, expected %d\nexpected on stdout: %s\nexpected on stderr: %s\n"
                 "stdout: %.2000s\nstderr: %.2000s",
                 command, o.code, code, out ? out : "(any)", err ? err : "(any)", o.out, o.err);
    outcome_free(&o);
}

static inline int enter_folder(void **state) {
    char *folder = strdup("/tmp/vdpp-test-XXXXXX");
    *state = folder;
    return !folder || !mkdtemp(folder) || chdir(folder) != 0 || setenv("V", VDPP_PROGRAM, 1) != 0;
}

static inline int leave_folder(void **state) {
    char command[128];
    snprintf(command, sizeof command, "chmod -R u+w '%s'; rm -rf '%s'", (char *)*state, (char *)*state);
    free(*state);
    return chdir("/") != 0 || shell(command) != 0;
}

#endif
