/* Whole runs of the engine on the fake CUDA: any number of devices in any mode makes the same bits as one,
 * over ways of every kind, and the CPU backend makes the same videos but for rounding. */
#include "engine/overflow.h"

#include <math.h>
#include <stdlib.h>

/* As studio_run, on the named devices; CUDA's come from the fake module. */
static take run_on(const studio *s, scene c, const char *const *devices, int count) {
    take t = {0};
    vdpp_engine *engine = NULL;
    c.devices = count;
    vdpp_options o = studio_options(s, &c);
    o.devices = devices;
    o.cuda_module = FAKE_MODULE;
    o.dtype = c.dtype ? c.dtype : "fp32";
    t.code = vdpp_open(&o, &engine, &t.error);
    if (t.code == 0)
        t = studio_make(s, engine, c);
    vdpp_close(engine);
    if (t.code)
        fail_msg("%s, %d devices: %s", devices[0], count, t.error.message);
    return t;
}

static void check_same(const studio *s, scene c, const char *const *devices, int count, const take *one) {
    take t = run_on(s, c, devices, count);
    assert_int_equal(t.report->sample_count, one->report->sample_count);
    for (int i = 0; i < one->report->sample_count; i++)
        assert_true(t.report->samples[i].latents_hash == one->report->samples[i].latents_hash);
    take_free(&t);
}

/* From 0 to 1 by peer access, from 1 to 2 and to 3 through the host, and two stages on one GPU. */
static void test_same_bits(void **state) {
    (void)state;
    studio s = studio_open();
    scene c = {.samples = 2, .mode = "data", .plain = true, .steps = 3};
    take one = run_on(&s, c, (const char *const[]){"cuda:0"}, 1);
    c.mode = "pipeline";
    check_same(&s, c, (const char *const[]){"cuda:0", "cuda:1", "cuda:2"}, 3, &one);
    c.mode = "wrap";
    check_same(&s, c, (const char *const[]){"cuda:1", "cuda:1", "cuda:3"}, 3, &one);
    take_free(&one);
    studio_close(&s);
}

static float *read_all(const char *path, const char *name, int64_t *count) {
    vd_safetensors *file;
    must(vd_safetensors_open(path, &file, err));
    const vd_st_tensor *t = vd_safetensors_find(file, name);
    assert_non_null(t);
    *count = 1;
    for (int i = 0; i < t->rank; i++)
        *count *= t->dims[i];
    float *values = malloc((size_t)*count * sizeof *values);
    assert_non_null(values);
    must(vd_safetensors_read_f32(file, t, 0, *count, values, err));
    vd_safetensors_close(file);
    return values;
}

static void compare(const char *a, const char *b, const char *name, double limit) {
    int64_t count, other;
    float *x = read_all(a, name, &count), *y = read_all(b, name, &other);
    double difference = 0, norm = 0;
    assert_int_equal(count, other);
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        norm += (double)y[i] * y[i];
    }
    free(x);
    free(y);
    print_message("%-13s %.1e (limit %.0e)\n", name, sqrt(difference / norm), limit);
    if (!(sqrt(difference / norm) <= limit))
        fail_msg("%s is off by %g", name, sqrt(difference / norm));
}

/* Image to frames on two GPUs and on one virtual CPU. */
static void check_against_cpu(const char *dtype, double limit) {
    studio s = studio_open();
    char cuda[256], cpu[256], a[300], b[300];
    snprintf(cuda, sizeof cuda, "%s/cuda", s.work.path);
    snprintf(cpu, sizeof cpu, "%s/cpu", s.work.path);
    scene c = {.image = "samples/images/ball.png", .dtype = dtype, .dump = cuda, .plain = true, .steps = 2};
    take t = run_on(&s, c, (const char *const[]){"cuda:0", "cuda:1"}, 2);
    take_free(&t);
    c.dump = cpu;
    c.dtype = "fp32";
    t = run_on(&s, c, (const char *const[]){"cpu:0"}, 1);
    take_free(&t);
    snprintf(a, sizeof a, "%s/sample-000.safetensors", cuda);
    snprintf(b, sizeof b, "%s/sample-000.safetensors", cpu);
    compare(a, b, "image_embeds", limit);
    compare(a, b, "image_latents", limit);
    compare(a, b, "unet_out.0", limit);
    compare(a, b, "latents", 3 * limit);
    studio_close(&s);
}

static void test_fp32(void **state) {
    (void)state;
    check_against_cpu("fp32", 1e-5);
}

static void test_fp16(void **state) {
    (void)state;
    check_against_cpu("fp16", 5e-3);
}

/* Two samples of which the first overflows fp16 and is decoded again beside a stage that goes on: but for
 * rounding to bytes its frames are the CPU's in fp32. */
static void test_decoded_again(void **state) {
    (void)state;
    static const char *const devices[] = {"cuda:0", "cuda:1"};
    studio s = studio_open();
    vdpp_engine *engine;
    char dump[128];
    size_t bytes;
    scale_decoder(&s, OVERFLOW_FP16);
    snprintf(dump, sizeof dump, "%s/dump", s.work.path);
    scene c = {.samples = 2,
               .devices = 2,
               .image = "samples/images/ball.png",
               .frames = 2,
               .chunk = 1,
               .steps = 1,
               .dtype = "fp16",
               .dump = dump};
    vdpp_options o = studio_options(&s, &c);
    o.devices = devices;
    o.cuda_module = FAKE_MODULE;
    take t = make_hot(&s, &o, &c, 1, &engine);
    if (t.code)
        fail_msg("%s", t.error.message);
    assert_true(t.report->samples[0].decoded_again && !t.report->samples[1].decoded_again);
    uint8_t *frames = dumped_frames(dump, 0, &bytes), *cpu = decoded_frames(&s, dump, 0, VD_F32, 1);
    for (size_t i = 0; i < bytes; i++)
        assert_in_range(frames[i] + 1 - cpu[i], 0, 2);
    free(frames);
    free(cpu);
    take_free(&t);
    studio_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_fp32),
                                       cmocka_unit_test(test_fp16), cmocka_unit_test(test_decoded_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
