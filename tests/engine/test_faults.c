/* What goes wrong on a device, in an image, at a file or by the user's hand is the affected sample's or
 * ends the run in time with what was finished kept; nothing wrong is ever published (faults.md R5, R7, R8,
 * R10, R12 and section 4). */
#include "engine/studio.h"

#include "base/thread.h"

#include <unistd.h>

enum { MOST = 25 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STRIDE = 5 }; /* positions of injections left out where a run costs ten times as much */
#else
enum { STRIDE = 1 };
#endif

static const char *const modes[] = {"pipeline", "data", "wrap"};
static const char image[] = "samples/images/ball.png";

typedef struct stage_set {
    studio studio;
    uint64_t latents[MOST]; /* of a clean run, latents only */
} stage_set;

static bool file_exists(const studio *s, const scene *c, int sample, const char *extension) {
    char stem[256], path[300];
    snprintf(path, sizeof path, "%s%s", studio_output(s, c, sample, stem), extension);
    return access(path, F_OK) == 0;
}

/* Finished samples have the clean run's bits; the others say why and have `code`. Returns how many failed. */
static int check_results(const char *label, const take *t, const uint64_t *latents, int code) {
    int failed = 0;
    assert_non_null(t->report);
    for (int i = 0; i < t->report->sample_count; i++) {
        const vdpp_sample_result *r = &t->report->samples[i];
        if (r->code == 0 && r->latents_hash != latents[i])
            fail_msg("%s: sample %d has other bits than a clean run", label, i);
        if (r->code != 0 && (r->code != code || !*r->error))
            fail_msg("%s: sample %d has code %d, expected %d: %s", label, i, r->code, code, r->error);
        failed += r->code != 0;
    }
    assert_int_equal(t->report->made, t->report->sample_count - failed);
    return failed;
}

static const char *first_failure(const take *t) {
    for (int i = 0; i < t->report->sample_count; i++)
        if (t->report->samples[i].code)
            return t->report->samples[i].error;
    return "";
}

/* One injection into `c`: at most one sample fails, with the device and `reason` in its message. Returns
 * how many failed. */
static int inject_one(const stage_set *set, scene c, int device, const char *kind, int k,
                      const char *reason) {
    char injection[48], label[96], name[8];
    snprintf(injection, sizeof injection, "cpu:%d:%s:%d", device, kind, k);
    snprintf(label, sizeof label, "%s on %d devices, %s", c.mode, c.devices, injection);
    snprintf(name, sizeof name, "cpu:%d", device);
    c.inject = injection;
    take t = studio_run(&set->studio, c);
    int failed = check_results(label, &t, set->latents, 70);
    const char *why = first_failure(&t);
    if (failed > 1 || t.code != (failed == 1 ? 1 : 0))
        fail_msg("%s: %d samples failed, code %d: %s", label, failed, t.code, t.error.message);
    if (failed && (!strstr(why, name) || !strstr(why, reason) || !strstr(t.error.message, why)))
        fail_msg("%s: the message should name %s and '%s': %s", label, name, reason, why);
    take_free(&t);
    return failed;
}

static void test_launch_fails(void **state) {
    static const int at[] = {1, 2, 4, 6};
    int hit = 0;
    for (int m = 0; m < 3; m++)
        for (int device = 0; device < 3; device++)
            for (int i = 0; i < 4; i++)
                hit += inject_one(*state, (scene){.devices = 3, .samples = 5, .mode = modes[m]}, device,
                                  "launch-fails", at[i], "launch");
    assert_true(hit >= 30); /* of 36; a device may have fewer launches */
    const stage_set *set = *state;
    take t = studio_run(&set->studio, (scene){.inject = "cpu:0:launch-fails:3"});
    assert_int_equal(t.code, 70); /* all failed: the code of the first */
    take_free(&t);
}

/* Each peer copy of these runs, dropped (which leaves zeros in a new slot, an older state in a used one),
 * zeroed and with a bit flipped: every one is noticed and costs its sample only. */
static void test_damaged_copies(void **state) {
    const stage_set *set = *state;
    static const char *const kinds[] = {"copy-dropped", "copy-zeroed", "copy-flipped"};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    static const struct {
        const char *mode;
        int devices, samples, first_sender, last_sender, copies;
    } runs[] = {{"pipeline", 8, 5, 0, 6, 5},
                {"pipeline", 6, 6, 0, 4, 6},
                {"pipeline", 4, 8, 0, 2, 8},
                {"pipeline", 2, 12, 0, 0, 12},
                {"wrap", 8, 11, 1, 7, 1}};
    stage_set plain = {.studio = set->studio};
    studio_reference(&set->studio, (scene){.samples = 12, .steps = 8, .plain = true}, plain.latents);
    int positions = 0;
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        scene c = {.devices = runs[r].devices,
                   .samples = runs[r].samples,
                   .mode = runs[r].mode,
                   .steps = 8,
                   .plain = true};
        int copies = (runs[r].last_sender - runs[r].first_sender + 1) * runs[r].copies;
        for (int i = 0; i < KINDS * copies; i++) {
            int device = runs[r].first_sender + i / KINDS / runs[r].copies,
                k = 1 + i / KINDS % runs[r].copies;
            if (positions++ % STRIDE == 0 &&
                inject_one(&plain, c, device, kinds[i % KINDS], k, "arrived damaged") != 1)
                fail_msg("%s of copy %d from cpu:%d was not noticed", kinds[i % KINDS], k, device);
        }
    }
    assert_true(positions >= 300);
}

/* A failed sample leaves no file, the others have theirs. */
static void test_failed_sample_has_no_file(void **state) {
    const stage_set *set = *state;
    static const char *const injections[] = {"cpu:0:launch-fails:9", "cpu:0:copy-flipped:2",
                                             "cpu:0:copy-dropped:2"};
    for (int i = 0; i < 3; i++) {
        char stem[16];
        snprintf(stem, sizeof stem, "partly%d", i);
        scene c = {.devices = 2,
                   .samples = 4,
                   .mode = "pipeline",
                   .formats = "latents",
                   .inject = injections[i],
                   .output = stem};
        take t = studio_run(&set->studio, c);
        assert_int_equal(check_results(injections[i], &t, set->latents, 70), 1);
        for (int k = 0; k < 4; k++)
            assert_int_equal(file_exists(&set->studio, &c, k, ".safetensors"),
                             t.report->samples[k].code == 0);
        take_free(&t);
    }
}

/* ---- a device that stands still ---- */

static void check_stall(const stage_set *set, int device, int k) {
    enum { SAMPLES = 6 };
    char injection[48], stem[16];
    snprintf(injection, sizeof injection, "cpu:%d:never-fires:%d", device, k);
    snprintf(stem, sizeof stem, "stall%d-%d", device, k);
    scene c = {.devices = 3,
               .samples = SAMPLES,
               .mode = "pipeline",
               .formats = "latents",
               .inject = injection,
               .stall_s = 1,
               .output = stem};
    double began = vd_now();
    take t = studio_run(&set->studio, c);
    double seconds = vd_now() - began;
    if (t.code != 75 || !strstr(t.error.message, "no progress for 1 s: cpu:") || seconds > 30)
        fail_msg("%s: code %d after %.1f s: %s", injection, t.code, seconds, t.error.message);
    assert_true(check_results(injection, &t, set->latents, 75) > 0);
    for (int i = 0; i < SAMPLES; i++)
        assert_int_equal(file_exists(&set->studio, &c, i, ".safetensors"), t.report->samples[i].code == 0);
    take_free(&t);
}

/* Events of the first sample's hand-off, and later ones, so that something is finished before. The first
 * device records `filled`, `sent` and `copied` for each sample; the second `freed` before them. */
static void test_never_fires(void **state) {
    static const struct { int device, k; } at[] = {{0, 1}, {0, 3}, {0, 8}, {1, 1}, {1, 2}, {1, 16}, {2, 3}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        check_stall(*state, at[i].device, at[i].k);
}

/* ---- memory ---- */

/* Every allocation on a device in turn, until none is left that could fail. */
static void test_no_memory(void **state) {
    const stage_set *set = *state;
    for (int device = 0; device < 2; device++) {
        int k = 0, code = 69;
        while (code == 69 && k < 100) {
            char injection[48];
            snprintf(injection, sizeof injection, "cpu:%d:no-memory:%d", device, ++k);
            take t = studio_run(&set->studio, (scene){.devices = 2, .samples = 3, .inject = injection});
            code = t.code;
            if (code == 69 && (!strstr(t.error.message, "no memory for") ||
                               strncmp(injection, strstr(t.error.message, "cpu:"), 5)))
                fail_msg("%s: %s", injection, t.error.message);
            assert_int_equal(check_results(injection, &t, set->latents, 75), code == 69 ? 3 : 0);
            take_free(&t);
        }
        assert_int_equal(code, 0);
        assert_in_range(k, 6, 99);
    }
}

/* ---- images and files ---- */

static void test_bad_images(void **state) {
    const stage_set *set = *state;
    const studio *s = &set->studio;
    char bad[128];
    uint64_t clean[4];
    snprintf(bad, sizeof bad, "%s/bad.png", s->work.path);
    folder_text(&s->work, "bad.png", "<html>not a picture</html>");
    studio_reference(s, (scene){.samples = 4, .image = image}, clean);
    const char *some[] = {image, bad, image, image}, *all[] = {bad, bad, bad, bad};
    for (int m = 0; m < 3; m++) {
        char stem[16];
        snprintf(stem, sizeof stem, "bad%d", m);
        scene c = {.devices = 3,
                   .samples = 4,
                   .mode = modes[m],
                   .images = some,
                   .formats = "latents",
                   .output = stem};
        take t = studio_run(s, c);
        assert_int_equal(t.code, 1);
        assert_int_equal(check_results("one bad image", &t, clean, 65), 1);
        assert_non_null(strstr(t.report->samples[1].error, bad));
        for (int i = 0; i < 4; i++)
            assert_int_equal(file_exists(s, &c, i, ".safetensors"), i != 1);
        take_free(&t);
        t = studio_run(s, (scene){.devices = 3, .samples = 4, .mode = modes[m], .images = all});
        assert_int_equal(t.code, 65);
        assert_int_equal(check_results("bad images", &t, clean, 65), 4);
        take_free(&t);
    }
    const char *missing[] = {image, "samples/images/none.png"};
    take t = studio_run(s, (scene){.samples = 2, .images = missing}); /* known before anything is made */
    assert_int_equal(t.code, 66);
    assert_null(t.report);
}

static void test_files_that_cannot_be(void **state) {
    const stage_set *set = *state;
    const studio *s = &set->studio;
    folder_text(&s->work, "a-file", "in the way of a folder");
    scene c = {.devices = 2, .samples = 3, .formats = "latents", .output = "a-file/out"};
    take t = studio_run(s, c);
    assert_int_equal(t.code, 73);
    assert_int_equal(check_results("no folder", &t, set->latents, 73), 3);
    assert_non_null(strstr(t.error.message, "a-file"));
    take_free(&t);

    c.output = "taken";
    folder_text(&s->work, "taken-1.safetensors", "precious");
    t = studio_run(s, c);
    assert_int_equal(t.code, 1);
    assert_int_equal(check_results("taken name", &t, set->latents, 73), 1);
    assert_int_equal(t.report->samples[1].code, 73);
    assert_true(file_exists(s, &c, 0, ".json") && !file_exists(s, &c, 1, ".json"));
    take_free(&t);
    char *bytes;
    size_t count;
    must(vd_file_read(folder_path(&s->work, "taken-1.safetensors"), "file", 1000, &bytes, &count, err));
    assert_string_equal(bytes, "precious");
    free(bytes);
}

/* ---- stopping ---- */

typedef struct stopper {
    vdpp_engine *engine;
    int64_t after; /* steps done */
} stopper;

static void stop_when(void *user, const vdpp_progress *p) {
    stopper *s = user;
    if (p->steps_done >= s->after)
        vdpp_stop(s->engine);
}

static void check_stopped(const stage_set *set, const scene *c, take *t, const char *label) {
    int left = check_results(label, t, set->latents, 75);
    if (t->code != (left ? 75 : 0))
        fail_msg("%s: code %d with %d samples left: %s", label, t->code, left, t->error.message);
    for (int i = 0; i < t->report->sample_count; i++)
        assert_int_equal(file_exists(&set->studio, c, i, ".safetensors"), t->report->samples[i].code == 0);
    assert_int_equal(t->report->failed, 0);
    take_free(t);
}

static void test_stop_while_running(void **state) {
    static const int after[] = {0, 1, 5, 12, 20};
    for (int m = 0; m < 3; m++)
        for (int i = 0; i < 5; i++) {
            char stem[24];
            stopper stop = {.after = after[i]};
            snprintf(stem, sizeof stem, "stop%d-%d", m, i);
            scene c = {.devices = 3,
                       .samples = 12,
                       .mode = modes[m],
                       .formats = "latents",
                       .output = stem,
                       .stop = &stop.engine,
                       .progress = stop_when,
                       .user = &stop};
            const stage_set *set = *state;
            take t = studio_run(&set->studio, c);
            check_stopped(set, &c, &t, stem);
        }
}

/* Samples of the next shape are not begun either. */
static void test_stop_before_next_shape(void **state) {
    const stage_set *set = *state;
    stopper stop = {.after = 1};
    scene c = {.progress = stop_when, .user = &stop};
    vdpp_options options = studio_options(&set->studio, &c);
    vdpp_job small = studio_job(&c, 0), large = small;
    large.frames = 4;
    vdpp_sample samples[] = {{&small, STUDIO_SEED, "a"}, {&large, 1, "b"}, {&small, 2, "c"}};
    vdpp_error error;
    vdpp_report *report;
    assert_int_equal(vdpp_open(&options, &stop.engine, &error), 0);
    assert_int_equal(vdpp_run(stop.engine, samples, 3, &report, &error), 75);
    assert_int_equal(report->samples[0].latents_hash, set->latents[0]);
    assert_int_equal(report->made, 1);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(report->samples[i].code, 75);
        assert_string_equal(report->samples[i].error, "not begun: the run was interrupted");
    }
    vdpp_report_free(report);
    vdpp_close(stop.engine);
}

typedef struct timer {
    vdpp_engine *engine;
    int64_t delay_ns;
    vd_thread thread;
} timer;

static void *stop_later(void *argument) {
    timer *t = argument;
    _Atomic uint32_t word = 0;
    vd_park(&word, 0, t->delay_ns);
    vdpp_stop(t->engine);
    return NULL;
}

/* From another thread, at any time, before the run too. */
static void test_stop_at_any_time(void **state) {
    const stage_set *set = *state;
    for (int i = 0; i < 12; i++) {
        char stem[24];
        snprintf(stem, sizeof stem, "time%d", i);
        scene c = {.devices = 3, .samples = 8, .mode = modes[i % 3], .formats = "latents", .output = stem};
        vdpp_options options = studio_options(&set->studio, &c);
        vdpp_error error;
        timer later = {.delay_ns = (int64_t)i * i * 700 * 1000};
        assert_int_equal(vdpp_open(&options, &later.engine, &error), 0);
        if (i == 0)
            vdpp_stop(later.engine);
        else
            must(vd_thread_start(&later.thread, "timer", VD_ANY_CPU, stop_later, &later, err));
        take t = studio_make(&set->studio, later.engine, c);
        vd_thread_join(&later.thread);
        if (i == 0)
            assert_int_equal(t.report->made, 0);
        check_stopped(set, &c, &t, stem);
        vdpp_close(later.engine);
    }
}

/* A device that is lost ends the run in time and is named; what was finished stands, the rest may be tried
 * again. */
static void test_device_lost(void **state) {
    const stage_set *set = *state;
    static const int at[] = {1, 3, 8, 14};
    int made = 0, left = 0;
    for (int m = 0; m < 3; m++)
        for (int device = 0; device < 3; device++)
            for (int i = 0; i < 4; i += 1 + (STRIDE > 1)) {
                char injection[48], name[8];
                snprintf(injection, sizeof injection, "cpu:%d:device-lost:%d", device, at[i]);
                snprintf(name, sizeof name, "cpu:%d ", device);
                take t = studio_run(
                    &set->studio, (scene){.devices = 3, .samples = 6, .mode = modes[m], .inject = injection});
                left += check_results(injection, &t, set->latents, 75);
                made += t.report->made;
                if (t.code == 75 && (!strstr(t.error.message, name) || !strstr(t.error.message, "run again")))
                    fail_msg("%s, %s: %s", modes[m], injection, t.error.message);
                assert_int_equal(t.code, t.report->made < 6 ? 75 : 0);
                take_free(&t);
            }
    assert_true(made > 0 && left > 0);
}

static int open_set(void **state) {
    static stage_set set;
    set.studio = studio_open();
    studio_reference(&set.studio, (scene){.samples = MOST}, set.latents);
    *state = &set;
    return 0;
}

static int close_set(void **state) {
    stage_set *set = *state;
    studio_close(&set->studio);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_launch_fails),
                                       cmocka_unit_test(test_damaged_copies),
                                       cmocka_unit_test(test_failed_sample_has_no_file),
                                       cmocka_unit_test(test_never_fires),
                                       cmocka_unit_test(test_no_memory),
                                       cmocka_unit_test(test_device_lost),
                                       cmocka_unit_test(test_bad_images),
                                       cmocka_unit_test(test_files_that_cannot_be),
                                       cmocka_unit_test(test_stop_while_running),
                                       cmocka_unit_test(test_stop_before_next_shape),
                                       cmocka_unit_test(test_stop_at_any_time)};
    return cmocka_run_group_tests(tests, open_set, close_set);
}
