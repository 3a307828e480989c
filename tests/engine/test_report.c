/* What the library says about a run: figures that agree with each other, progress that only moves forward,
 * and refusals of options that cannot be. */
#include "engine/studio.h"

static const char image[] = "samples/images/ball.png";

static void check_times(const vdpp_report *r) {
    assert_true(0 <= r->load_s && r->load_s <= r->wall_s);
    assert_true(0 < r->first_sample_s && r->first_sample_s <= r->wall_s);
    assert_true(0 < r->latency_p50_s && r->latency_p50_s <= r->latency_p95_s &&
                r->latency_p95_s <= r->wall_s);
    assert_true(r->throughput_sps == r->made / r->wall_s);
    assert_true(0 <= r->fill_s && r->fill_s <= r->wall_s && 0 <= r->drain_s && r->drain_s <= r->wall_s);
    assert_true(0 <= r->bubble_share && r->bubble_share <= 1);
    assert_true(0 < r->step_median_s && r->step_median_s < r->wall_s);
    assert_true(r->steady_interval_s >= 0 && r->steady_interval_s <= r->wall_s);
    assert_true(r->simulated_wall_s > 0);
    assert_true(!*r->better_mode || (r->better_wall_s > 0 && r->better_wall_s < r->simulated_wall_s));
}

static void check_samples(const vdpp_report *r) {
    double first = r->wall_s;
    for (int i = 0; i < r->sample_count; i++) {
        const vdpp_sample_result *s = &r->samples[i];
        assert_int_equal(s->code, 0);
        assert_true(0 <= s->admitted_s && s->admitted_s <= s->first_step_s &&
                    s->first_step_s < s->finished_s);
        assert_true(s->finished_s <= r->wall_s);
        first = s->finished_s < first ? s->finished_s : first;
        for (int d = 1; d < s->device_count; d++)
            assert_int_not_equal(s->devices[d], s->devices[d - 1]);
    }
    assert_true(first == r->first_sample_s);
}

static void check_devices(const vdpp_report *r, int devices) {
    uint64_t planned = r->weight_bytes + r->host_planned_bytes;
    assert_int_equal(r->device_count, devices);
    for (int d = 0; d < devices; d++) {
        const vdpp_device_result *v = &r->devices[d];
        char name[16];
        snprintf(name, sizeof name, "cpu:%d", d);
        assert_string_equal(v->name, name);
        assert_true(0 < v->busy_s && v->busy_s <= r->wall_s && 0 < v->busy_share && v->busy_share <= 1);
        if (v->peak_bytes == 0 || v->peak_bytes > v->planned_bytes)
            fail_msg("%s took %lu bytes at most, planned %lu", name, (unsigned long)v->peak_bytes,
                     (unsigned long)v->planned_bytes);
        planned += v->planned_bytes;
    }
    assert_true(r->planned_bytes >= planned);
}

static void test_figures(void **state) {
    static const char *const modes[] = {"pipeline", "data", "wrap"};
    for (int m = 0; m < 3; m++) {
        for (int with_image = 0; with_image < 2; with_image++) {
            take t = studio_run(*state, (scene){.devices = 3,
                                                .samples = 5,
                                                .mode = modes[m],
                                                .chunk = 2,
                                                .image = with_image ? image : NULL});
            if (t.code)
                fail_msg("%s", t.error.message);
            assert_string_equal(t.report->mode, modes[m]);
            assert_string_equal(t.report->dtype, "fp32");
            assert_int_equal(t.report->made, 5);
            assert_int_equal(t.report->failed, 0);
            assert_true(*t.report->machine && t.report->weight_bytes > 0);
            check_times(t.report);
            check_samples(t.report);
            check_devices(t.report, 3);
            take_free(&t);
        }
    }
}

/* Devices are listed in the order in which a sample visits them. */
static void test_visits(void **state) {
    take t = studio_run(*state, (scene){.devices = 4, .samples = 2, .mode = "pipeline", .image = image});
    for (int i = 0; i < 2; i++) {
        assert_int_equal(t.report->samples[i].device_count, 4);
        for (int d = 0; d < 4; d++)
            assert_int_equal(t.report->samples[i].devices[d], d);
    }
    take_free(&t);
    t = studio_run(*state, (scene){.devices = 3, .samples = 5, .mode = "data"});
    for (int i = 0; i < 5; i++) {
        assert_int_equal(t.report->samples[i].device_count, 1);
        assert_int_equal(t.report->samples[i].devices[0], i % 3);
    }
    take_free(&t);
    t = studio_run(*state, (scene){.devices = 2, .samples = 3, .mode = "wrap"});
    int cut = 0;
    for (int i = 0; i < 3;
         i++) /* the line is laid back to front: a cut sample's head is on the later device */
        if (t.report->samples[i].device_count == 2) {
            cut++;
            assert_int_equal(t.report->samples[i].devices[0], 1);
            assert_int_equal(t.report->samples[i].devices[1], 0);
        }
    assert_int_equal(cut, 1);
    take_free(&t);
    t = studio_run(*state, (scene){.devices = 2, .samples = 3, .mode = "auto"});
    assert_string_not_equal(t.report->mode, "auto");
    assert_non_null(strstr(t.report->reason, t.report->mode));
    take_free(&t);
}

typedef struct trace {
    int calls, finished, announced, wrong;
    int64_t steps;
} trace;

static void follow(void *user, const vdpp_progress *p) {
    trace *t = user;
    t->calls++;
    t->wrong += p->samples != 6 || p->finished < t->finished || p->steps_done < t->steps ||
                p->steps_done > p->steps || p->steps != 6 * STUDIO_STEPS || p->device_count != 3 ||
                p->finished_sample >= 6;
    t->announced += p->finished_sample >= 0;
    t->finished = p->finished;
    t->steps = p->steps_done;
    for (int d = 0; d < p->device_count; d++)
        t->wrong += p->devices[d].sample >= 6 || !strchr("esd ", p->devices[d].task);
}

static void test_progress(void **state) {
    static const char *const modes[] = {"pipeline", "data", "wrap"};
    for (int m = 0; m < 3; m++) {
        trace t = {0};
        take k = studio_run(
            *state, (scene){.devices = 3, .samples = 6, .mode = modes[m], .progress = follow, .user = &t});
        assert_int_equal(k.code, 0);
        assert_int_equal(t.wrong, 0);
        assert_int_equal(t.finished, 6);
        assert_int_equal(t.steps, 6 * STUDIO_STEPS);
        assert_in_range(t.announced, 1, t.calls);
        take_free(&k);
    }
}

/* Opening or running with these fails with the code and names what is wrong. */
static void test_refusals(void **state) {
    static const int too_few[] = {1, 1}, uneven[] = {1, 2};
    static const struct {
        scene c;
        int code;
        const char *word;
    } cases[] = {
        {{.mode = "fast"}, 64, "--parallel fast"},
        {{.dtype = "fp8"}, 64, "--dtype fp8"},
        {{.formats = "null,avi"}, 64, "--format avi"},
        {{.formats = ","}, 64, "--format"},
        {{.devices = 2, .split = too_few}, 64, "split"},
        {{.devices = 2, .mode = "data", .split = uneven}, 64, "--split"},
        {{.inject = "cpu:0:meteor:1"}, 64, "--inject"},
        {{.width = 12}, 64, "--width 12"},
        {{.frames = -1}, 64, "--frames -1"},
        {{.steps = 1001}, 64, "--steps 1001"},
        {{.chunk = -1}, 64, "--decode-chunk -1"},
        {{.image = "no/such.png"}, 66, "no/such.png"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        take t = studio_run(*state, cases[i].c);
        if (t.code != cases[i].code || !strstr(t.error.message, cases[i].word) || t.report)
            fail_msg("case %zu: code %d, expected %d and '%s': %s", i, t.code, cases[i].code, cases[i].word,
                     t.error.message);
    }
}

static void test_devices_refused(void **state) {
    static const struct {
        const char *names[2];
        int count, code;
    } cases[] = {{{"cpu:0", "cpu:0"}, 2, 64}, {{"cuda:0", NULL}, 1, 69}, {{"gpu:0", NULL}, 1, 64},
                 {{"cpu:-1", NULL}, 1, 64},   {{"cpu:1x", NULL}, 1, 64}, {{"cpu:0", NULL}, 0, 64},
                 {{"cpu:0", NULL}, 65, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vdpp_options o = studio_options(*state, &(scene){0});
        o.devices = cases[i].names;
        o.device_count = cases[i].count;
        vdpp_engine *engine;
        vdpp_error error;
        assert_int_equal(vdpp_open(&o, &engine, &error), cases[i].code);
        assert_int_equal(error.code, cases[i].code);
        assert_true(*error.message != 0);
    }
}

/* The plan that is printed names every device and the mode, and running after it works. */
static void test_describe(void **state) {
    scene c = {.devices = 2, .samples = 3, .mode = "wrap", .image = image};
    vdpp_options o = studio_options(*state, &c);
    vdpp_engine *engine;
    vdpp_error error;
    char *text = NULL;
    vdpp_job job = studio_job(&c, 0);
    vdpp_sample samples[] = {{&job, 1, "a"}, {&job, 2, "b"}, {&job, 3, "c"}};
    assert_int_equal(vdpp_open(&o, &engine, &error), 0);
    assert_int_equal(vdpp_describe(engine, samples, 3, &text, &error), 0);
    static const char *const words[] = {"cpu:0", "cpu:1", "weights", "total", "wrap"};
    for (int i = 0; i < 5; i++)
        assert_non_null(strstr(text, words[i]));
    free(text);
    take t = studio_make(*state, engine, c);
    assert_int_equal(t.code, 0);
    take_free(&t);
    assert_int_equal(vdpp_run(engine, samples, 0, &t.report, &error), 64);
    vdpp_close(engine);
    vdpp_close(NULL);
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),         cmocka_unit_test(test_visits),
        cmocka_unit_test(test_progress),        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_devices_refused), cmocka_unit_test(test_describe)};
    return cmocka_run_group_tests(tests, open_studio, close_studio);
}
