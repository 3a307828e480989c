/* Under ThreadSanitizer only: the engine is clean with seven devices in all modes, and each event wait on
 * the way of a hand-off is needed. A virtual device's streams are ordered by nothing but events
 * (cpu_tsan.h), so a run in which one wait is forgotten must be reported, whatever the timing. Each such
 * run is a process of its own, this program with arguments: MODEL MODE DEVICES SAMPLES INJECTION. */
#include "engine/studio.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

enum {
    REPORTED = 66, /* the sanitizer's exit code */
    PIPELINE_DEVICES = 3,
    PIPELINE_SAMPLES = 4,
    DEEP = 2, /* slots of a link and outboxes of a stage */
};

static void test_clean(void **state) {
    const studio *s = *state;
    static const char *const modes[] = {"pipeline", "data", "wrap", "auto"};
    static char stem[16];
    for (int m = 0; m < 4; m++) {
        take t = studio_run(s, (scene){.devices = 7, .samples = 10, .mode = modes[m]});
        assert_int_equal(t.code, 0);
        take_free(&t);
        snprintf(stem, sizeof stem, "clean%d", m);
        t = studio_run(s, (scene){.devices = 7,
                                  .samples = 4,
                                  .mode = modes[m],
                                  .image = "samples/images/ball.png",
                                  .formats = "png,latents",
                                  .output = stem,
                                  .chunk = 2});
        assert_int_equal(t.code, 0);
        take_free(&t);
    }
} /* a report makes the whole program fail when it ends */

/* The exit status of a run in a process of its own. */
static int run_apart(const studio *s, const char *mode, int devices, int samples, const char *injection) {
    char count[2][8];
    snprintf(count[0], sizeof count[0], "%d", devices);
    snprintf(count[1], sizeof count[1], "%d", samples);
    char name[] = "test_races", options[] = "TSAN_OPTIONS=exitcode=66:halt_on_error=1";
    char *argv[] = {name, (char *)s->model.path, (char *)mode, count[0], count[1], (char *)injection, NULL};
    char *environment[] = {options, NULL};
    posix_spawn_file_actions_t quiet;
    assert_int_equal(posix_spawn_file_actions_init(&quiet), 0);
    posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
    pid_t child;
    int status;
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", &quiet, NULL, argv, environment), 0);
    posix_spawn_file_actions_destroy(&quiet);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void check_wait(const studio *s, const char *mode, int devices, int samples, int device, int k,
                       bool needed, const char *what) {
    char injection[48];
    snprintf(injection, sizeof injection, "cpu:%d:wait-dropped:%d", device, k);
    int status = run_apart(s, mode, devices, samples, injection);
    if (status != (needed ? REPORTED : 0))
        fail_msg("%s, %s (wait for '%s'): exit status %d, expected %d", mode, injection, what, status,
                 needed ? REPORTED : 0);
}

/* The waits of a device in a pipeline, in the order in which its stage enqueues them: per sample the
 * compute stream waits for what came in (`copied`) and for its outbox (`sent`), the copy stream for the
 * filled outbox (`filled`) and for the receiver's slot (`freed`). The first two uses of an outbox or a
 * slot wait for an event that nobody has recorded, which is a no-op: without those waits the run is clean. */
static void check_pipeline_device(const studio *s, int device) {
    static const char *const names[] = {"copied", "sent", "filled", "freed"};
    int first = device > 0 ? 0 : 1, last = device < PIPELINE_DEVICES - 1 ? 4 : 1, k = 0;
    for (int sample = 0; sample < PIPELINE_SAMPLES; sample++)
        for (int w = first; w < last; w++) {
            bool needed = w == 0 || w == 2 || sample >= DEEP;
            check_wait(s, "pipeline", PIPELINE_DEVICES, PIPELINE_SAMPLES, device, ++k, needed, names[w]);
        }
    check_wait(s, "pipeline", PIPELINE_DEVICES, PIPELINE_SAMPLES, device, k + 1, false, "beyond the last");
}

static void test_pipeline_waits(void **state) {
    for (int device = 0; device < PIPELINE_DEVICES; device++)
        check_pipeline_device(*state, device);
}

/* Wrap of three samples on two devices: one is begun by cpu:1 and ended by cpu:0. */
static void test_wrap_waits(void **state) {
    check_wait(*state, "wrap", 2, 3, 1, 1, false, "sent, never recorded");
    check_wait(*state, "wrap", 2, 3, 1, 2, true, "filled");
    check_wait(*state, "wrap", 2, 3, 1, 3, false, "freed, never recorded");
    check_wait(*state, "wrap", 2, 3, 0, 1, true, "copied");
}

/* One run in this process; 0 when all was made and nothing reported. */
static int run_here(char **argv) {
    studio s = {0};
    snprintf(s.model.path, sizeof s.model.path, "%s", argv[1]);
    take t = studio_run(
        &s, (scene){.mode = argv[2], .devices = atoi(argv[3]), .samples = atoi(argv[4]), .inject = argv[5]});
    take_free(&t);
    return t.code ? 1 : 0;
}

static int open_studio(void **state) {
    static studio s;
    s = studio_open();
    *state = &s;
    return 0;
}

static int close_studio(void **state) {
    studio_close(*state);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 6)
        return run_here(argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clean), cmocka_unit_test(test_pipeline_waits),
                                       cmocka_unit_test(test_wrap_waits)};
    return cmocka_run_group_tests(tests, open_studio, close_studio);
}
