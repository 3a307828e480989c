#include "app/commands.h"
#include "app/version.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Closed standard files are held by something harmless, so that no output gets their numbers; writing to such
 * a stdout still fails. */
static void hold_standard_files(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDONLY) < 0)
            _Exit(VD_ERR_IO);
}

/* What comes before the options; without it, videos are made. */
typedef struct command {
    const char *name;
    unsigned where;
    vd_code (*run)(const vd_options *options, FILE *out, vd_error *err);
} command;

static const command commands[] = {{"plan", VD_IN_PLAN, vd_plan_command},
                                   {"tune", VD_IN_RUN, vd_tune_command},
                                   {"devices", VD_IN_DEVICES, vd_devices_command},
                                   {"doctor", VD_IN_DOCTOR, vd_doctor_command}};

static const command *find_command(const char *name) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* `named`: NULL for making videos. */
static vd_code run_command(vd_options *options, const command *named, int argc, char **argv, vd_error *err) {
    if (options->help) {
        vd_options_print_help(stdout);
        return VD_OK;
    }
    if (options->version) {
        printf("vdpp %s (commit %s, %s)\n", VDPP_VERSION, vd_build_commit, vd_build_description);
        return VD_OK;
    }
    return named ? named->run(options, stdout, err) : vd_generate_command(options, argc, argv, err);
}

/* Everything printed has arrived, or the exit code says that it has not. */
static vd_code flush_output(vd_code code, vd_error *err) {
    int written = fflush(stdout);
    if ((written != 0 || ferror(stdout)) && code == VD_OK)
        return vd_fail(err, VD_ERR_IO, "cannot write to standard output: %m");
    return code;
}

int main(int argc, char **argv) {
    vd_options options;
    vd_error err = {0};
    hold_standard_files();
    signal(SIGPIPE, SIG_IGN); /* writing then fails with an error that is reported */
    signal(SIGXFSZ, SIG_IGN);
    /* Buffers that loading needs for a moment go back to the system at once, as --dry-run counts them. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    setenv("HWLOC_HIDE_ERRORS", "2", 0); /* it would print that a container has no /sys */
    bool is_named = argc > 1 && argv[1][0] != '-';
    const command *named = is_named ? find_command(argv[1]) : NULL;
    vd_options_init(&options);
    vd_code code =
        is_named && !named
            ? vd_fail(&err, VD_ERR_USAGE,
                      "unknown command '%.60s'; there are plan, tune, devices and doctor, and images are "
                      "given with -i",
                      argv[1])
            : vd_options_parse(&options, named ? named->where : VD_IN_RUN, argc - 1 - is_named,
                               argv + 1 + is_named, getenv, &err);
    if (code == VD_OK)
        code = run_command(&options, named, argc, argv, &err);
    code = flush_output(code, &err);
    if (code != VD_OK && err.message[0])
        fprintf(stderr, "vdpp: %s\n", err.message);
    vd_options_free(&options);
    return (int)code;
}
