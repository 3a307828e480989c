/* Samples whose frames overflow fp16 are decoded once more in fp32: with the bits of an fp32 decoder, in any
 * schedule; what fp32 cannot help costs the sample only, and says why (decode.h). */
#include "engine/overflow.h"

enum { FRAMES = 3, CHUNK = 2 };

static const float OVERFLOW_FP32 = 1e36f; /* as OVERFLOW_FP16 */

static const char *const modes[] = {"pipeline", "data", "wrap"};

static const scene usual = {.samples = 1,
                            .image = "samples/images/ball.png",
                            .frames = FRAMES,
                            .chunk = CHUNK,
                            .steps = 2,
                            .dtype = "fp16"};

/* What came of a run, with its dumps in a folder of their own. */
typedef struct shot {
    take take;
    warnings warnings;
    char dump[128];
} shot;

static shot shoot(const studio *s, scene c, unsigned hot) {
    static int runs;
    shot r = {0};
    vdpp_engine *engine = NULL;
    snprintf(r.dump, sizeof r.dump, "%s/dump%d", s->work.path, runs++);
    c.dump = r.dump;
    vdpp_options o = studio_options(s, &c);
    o.log = hear_warning;
    o.log_level = VDPP_LOG_WARNING;
    o.user = &r.warnings;
    r.take = make_hot(s, &o, &c, hot, &engine);
    return r;
}

static const vdpp_sample_result *result(const shot *r, int sample) {
    assert_non_null(r->take.report);
    return &r->take.report->samples[sample];
}

static void check_frames(const studio *s, const shot *r, int sample, vd_dtype dtype) {
    size_t bytes;
    uint8_t *frames = dumped_frames(r->dump, sample, &bytes),
            *expected = decoded_frames(s, r->dump, sample, dtype, CHUNK);
    if (memcmp(frames, expected, bytes) != 0)
        fail_msg("sample %d has other frames than a decoder in %s", sample, vd_dtype_name(dtype));
    free(frames);
    free(expected);
}

/* ---- frames that fp32 can help ---- */

static void test_decoded_again(void **state) {
    scene c = usual;
    c.samples = 3;
    shot r = shoot(*state, c, 2);
    if (r.take.code)
        fail_msg("%s", r.take.error.message);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(result(&r, i)->decoded_again, i == 1);
        check_frames(*state, &r, i, i == 1 ? VD_F32 : VD_F16);
    }
    assert_int_equal(r.warnings.count, 1);
    if (!strstr(r.warnings.last, "sample 1: ") ||
        !strstr(r.warnings.last, " decoded values are not finite in fp16; decoded again in fp32"))
        fail_msg("%s", r.warnings.last);
    take_free(&r.take);
}

static void test_any_schedule(void **state) {
    const unsigned hot = 0x2d;
    for (int m = 0; m < 3; m++) {
        scene c = usual;
        c.devices = 3;
        c.samples = 6;
        c.mode = modes[m];
        shot r = shoot(*state, c, hot);
        if (r.take.code)
            fail_msg("%s: %s", modes[m], r.take.error.message);
        for (int i = 0; i < c.samples; i++) {
            assert_int_equal(result(&r, i)->decoded_again, hot >> i & 1);
            check_frames(*state, &r, i, hot >> i & 1 ? VD_F32 : VD_F16);
        }
        assert_int_equal(r.warnings.count, 4);
        take_free(&r.take);
    }
}

/* What has the range needs no second time. */
static void test_wider_types_decode_once(void **state) {
    static const char *const types[] = {"fp32", "bf16"};
    for (int i = 0; i < 2; i++) {
        scene c = usual;
        c.dtype = types[i];
        shot r = shoot(*state, c, 1);
        assert_int_equal(r.take.code, 0);
        assert_int_equal(result(&r, 0)->decoded_again, 0);
        assert_int_equal(r.warnings.count, 0);
        take_free(&r.take);
    }
}

/* ---- what fp32 cannot help ---- */

static void check_refused(const shot *r, int sample, int code, const char *what, const char *why) {
    const vdpp_sample_result *one = result(r, sample);
    if (one->code != code || !strstr(one->error, what) || !strstr(one->error, why) || one->decoded_again)
        fail_msg("sample %d: code %d, expected %d, '%s' and '%s': %s", sample, one->code, code, what, why,
                 one->error);
    assert_int_equal(one->file_count, 0);
}

/* Half of the samples are beyond fp32 as well; for the others fp16 cannot even hold the weights. */
static void test_fp32_overflows_too(void **state) {
    static const struct {
        const char *dtype, *what, *why;
        int again;
    } cases[] = {{"fp16", "not finite in fp16", " in fp32", 1},
                 {"bf16", "not finite in bf16", " in fp32", 0},
                 {"fp32", "not finite in fp32", "", 0}};
    (void)state;
    studio s = studio_open();
    scale_decoder(&s, OVERFLOW_FP32);
    for (int i = 0; i < 3; i++) {
        scene c = usual;
        c.samples = 4;
        c.devices = 2;
        c.dtype = cases[i].dtype;
        shot r = shoot(&s, c, 6);
        assert_int_equal(r.take.code, 1);
        assert_int_equal(r.take.report->made, 2);
        for (int k = 0; k < 4; k++)
            if (k == 1 || k == 2)
                check_refused(&r, k, 70, cases[i].what, cases[i].why);
            else
                assert_int_equal(result(&r, k)->decoded_again, cases[i].again);
        take_free(&r.take);
    }
    studio_close(&s);
}

/* Nothing to decode from. */
static void test_latents_overflow(void **state) {
    (void)state;
    studio s = studio_open();
    scale_tensor(&s, "unet/diffusion_pytorch_model.safetensors", "conv_in.weight", 1e6f);
    shot r = shoot(&s, usual, 1);
    assert_int_equal(r.take.code, 70);
    check_refused(&r, 0, 70, "the latents are not finite in fp16", "--dtype fp32");
    assert_int_equal(r.warnings.count, 0);
    take_free(&r.take);
    studio_close(&s);
}

/* ---- what happens meanwhile ---- */

/* Of `samples` samples the first overflows. Each call of the kind fails in turn, until none is left; returns
 * how many of them were of a second decoding, which then ends with `code`, the run with `run_code`. */
static int inject_each(const studio *s, int samples, const char *kind, int code, const char *why,
                       int run_code) {
    int hits = 0, k = 0;
    bool clean = false;
    while (!clean) {
        char injection[48];
        snprintf(injection, sizeof injection, "cpu:0:%s:%d", kind, ++k);
        assert_in_range(k, 1, 99);
        scene c = usual;
        c.samples = samples;
        c.steps = 1;
        c.inject = injection;
        shot r = shoot(s, c, 1);
        clean = r.take.code == 0;
        assert_int_equal(result(&r, 0)->decoded_again, result(&r, 0)->code == 0);
        if (strstr(result(&r, 0)->error, "decoding again")) {
            hits++;
            check_refused(&r, 0, code, " decoded values are not finite in fp16", why);
            assert_int_equal(r.take.report->made, samples - 1);
            if (r.take.code != run_code || !strstr(r.take.error.message, "cpu:0"))
                fail_msg("%s: code %d: %s", injection, r.take.code, r.take.error.message);
        }
        take_free(&r.take);
    }
    return hits;
}

/* Arena and buffers; only what was planned ends the run. */
static void test_no_memory(void **state) {
    assert_int_equal(inject_each(*state, 2, "no-memory", 69, "(injected); try a smaller --decode-chunk", 1),
                     2);
}

static void test_launch_fails(void **state) {
    assert_int_equal(inject_each(*state, 1, "launch-fails", 70, "a launch failed", 70), 2);
}

static void test_device_lost(void **state) {
    assert_int_equal(inject_each(*state, 1, "device-lost", 75, "was lost", 75), 2);
}

static void stop_at_once(void *user, const vdpp_progress *p) {
    vdpp_engine **engine = user;
    if (p->steps_done > 0)
        vdpp_stop(*engine);
}

/* What is in flight is finished, the second decoding with it. */
static void test_stop(void **state) {
    const studio *s = *state;
    enum { SAMPLES = 4 };
    vdpp_engine *engine;
    char dump[128];
    snprintf(dump, sizeof dump, "%s/stopped", s->work.path);
    scene c = usual;
    c.samples = SAMPLES;
    c.dump = dump;
    c.progress = stop_at_once;
    c.user = &engine;
    vdpp_options o = studio_options(s, &c);
    take t = make_hot(s, &o, &c, (1u << SAMPLES) - 1, &engine);
    assert_true(t.report && t.report->made > 0);
    for (int i = 0; i < SAMPLES; i++) {
        const vdpp_sample_result *r = &t.report->samples[i];
        assert_true(r->code == 0 ? r->decoded_again : r->code == 75);
    }
    take_free(&t);
}

static int open_studio(void **state) {
    static studio s;
    s = studio_open();
    scale_decoder(&s, OVERFLOW_FP16);
    *state = &s;
    return 0;
}

static int close_studio(void **state) {
    studio_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_decoded_again),
                                       cmocka_unit_test(test_any_schedule),
                                       cmocka_unit_test(test_wider_types_decode_once),
                                       cmocka_unit_test(test_fp32_overflows_too),
                                       cmocka_unit_test(test_latents_overflow),
                                       cmocka_unit_test(test_no_memory),
                                       cmocka_unit_test(test_launch_fails),
                                       cmocka_unit_test(test_device_lost),
                                       cmocka_unit_test(test_stop)};
    return cmocka_run_group_tests(tests, open_studio, close_studio);
}
