/* The engine's calls as a GPU would get them: written down, then proved to be in order by streams and
 * events alone; and that the proof fails when one wait is missing. */
#include "engine/studio.h"

#include "engine/engine.h"
#include "engine/recording.h"

#include <stdlib.h>

static const char *const modes[] = {"pipeline", "data", "wrap", "auto"};

/* Runs a scene on recorded devices, of which `device` has its k-th wait forgotten (0: none). */
static recording *record_scene(const studio *s, scene c, int device, int k, take *t) {
    vdpp_options o = studio_options(s, &c);
    vdpp_engine *engine;
    recording *r = recording_new();
    assert_non_null(r);
    assert_int_equal(vdpp_open(&o, &engine, &t->error), 0);
    for (int i = 0; i < engine->devices.count; i++) {
        vd_device **at = &engine->devices.at[i];
        must(recording_device_open(r, *at, at, err));
    }
    recording_forget(r, device, k);
    *t = studio_make(s, engine, c);
    vdpp_close(engine);
    return r;
}

static void check_clean(const studio *s, scene c) {
    take t;
    recording *r = record_scene(s, c, 0, 0, &t);
    if (t.code || recording_problems(r))
        fail_msg("%s, %d devices: code %d %s\n%s", c.mode, c.devices, t.code, t.code ? t.error.message : "",
                 recording_problems(r) ? recording_problems(r) : "");
    if (!recording_launched(r, "step", c.samples, STUDIO_STEPS))
        fail_msg("%s, %d devices: not one launch for each step", c.mode, c.devices);
    assert_true(recording_accesses(r) > 10 * c.samples);
    take_free(&t);
    recording_free(r);
}

static void test_order(void **state) {
    static const int devices[] = {1, 2, 3, 5, 8};
    for (int m = 0; m < 4; m++)
        for (int i = 0; i < 5; i++)
            check_clean(*state, (scene){.devices = devices[i], .mode = modes[m], .samples = 6});
}

static void test_order_from_image_to_frames(void **state) {
    for (int m = 0; m < 4; m++)
        check_clean(*state, (scene){.devices = 4,
                                    .mode = modes[m],
                                    .samples = 5,
                                    .image = "samples/images/ball.png",
                                    .chunk = 2});
}

/* Each wait that waits for anything is needed: without it something is found that nothing orders. */
static void test_missing_wait_is_found(void **state) {
    static const scene scenes[] = {
        {.devices = 3, .samples = 4, .plain = true, .mode = "pipeline"},
        {.devices = 2, .samples = 5, .plain = true, .mode = "wrap"},
    };
    int missed = 0;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        take t;
        recording *clean = record_scene(*state, scenes[i], 0, 0, &t);
        take_free(&t);
        for (int d = 0; d < scenes[i].devices; d++)
            for (int k = 1; k <= recording_waits(clean, d); k++) {
                recording *r = record_scene(*state, scenes[i], d, k, &t);
                assert_int_equal(t.code, 0);
                take_free(&t);
                bool found = recording_problems(r) && strstr(recording_problems(r), "nothing orders them");
                if (found != recording_wait_matters(clean, d, k))
                    fail_msg("%s: wait %d of device %d was forgotten: %s", scenes[i].mode, k, d,
                             found ? recording_problems(r) : "nothing was found");
                missed += found;
                recording_free(r);
            }
        recording_free(clean);
    }
    assert_true(missed >= 20);
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_order_from_image_to_frames),
                                       cmocka_unit_test(test_missing_wait_is_found)};
    return cmocka_run_group_tests(tests, open_studio, close_studio);
}
