/* The same bits for every plan, number of devices, number of samples and repetition, whatever the heap was
 * filled with: design.md section 7 and R3 of faults.md. */
#include "engine/studio.h"

#include "base/hash.h"

#include <malloc.h>

enum { MOST_SAMPLES = 6, COMBINATIONS_PROMISED = 100 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STRIDE = 3 }; /* counts of devices left out where a run costs ten times as much */
#else
enum { STRIDE = 1 };
#endif

static const char *const modes[] = {"pipeline", "data", "wrap", "auto"};
static const char image[] = "samples/images/ball.png";

typedef struct expected {
    uint64_t latents[MOST_SAMPLES], frames[MOST_SAMPLES];
} expected;

/* Every byte of the sample's picture files. */
static uint64_t hash_frames(const vdpp_sample_result *r) {
    uint64_t sum = 0;
    assert_int_equal(r->file_count, 1);
    for (int i = 0; i < 3; i++) {
        char path[300];
        char *bytes;
        size_t count;
        snprintf(path, sizeof path, "%s/frame-%03d.png", r->files[0], i);
        must(vd_file_read(path, "frame", 1 << 20, &bytes, &count, err));
        sum = sum * 31 + vd_hash64(bytes, count);
        free(bytes);
    }
    return sum;
}

static void check_take(const char *label, take *t, const expected *e) {
    if (t->code)
        fail_msg("%s: %s", label, t->error.message);
    for (int i = 0; i < t->report->sample_count; i++) {
        const vdpp_sample_result *r = &t->report->samples[i];
        if (r->latents_hash != e->latents[i])
            fail_msg("%s, sample %d: latents %016lx, not %016lx", label, i, (unsigned long)r->latents_hash,
                     (unsigned long)e->latents[i]);
        if (r->file_count && hash_frames(r) != e->frames[i])
            fail_msg("%s, sample %d: other frames", label, i);
    }
    take_free(t);
}

/* Latents only: all modes and counts of devices, three counts of samples each, one engine for all three. */
static int sweep_modes(const studio *s, const expected *e) {
    int combinations = 0;
    for (int devices = 1; devices <= STUDIO_DEVICES; devices += STRIDE) {
        for (int m = 0; m < 4; m++) {
            scene c = {.devices = devices, .mode = modes[m]};
            vdpp_options options = studio_options(s, &c);
            vdpp_engine *engine;
            vdpp_error error;
            assert_int_equal(vdpp_open(&options, &engine, &error), 0);
            for (int i = 0; i < 3; i++, combinations++) {
                c.samples = 1 + (devices + m + 2 * i) % MOST_SAMPLES;
                char label[64];
                snprintf(label, sizeof label, "%s, %d devices, %d samples", modes[m], devices, c.samples);
                take t = studio_make(s, engine, c);
                check_take(label, &t, e);
            }
            vdpp_close(engine);
        }
    }
    return combinations;
}

/* Pipelines cut in every way: all steps on one device, devices without any, uneven shares. */
static int sweep_splits(const studio *s, const expected *e) {
    static const struct {
        int devices, split[STUDIO_DEVICES];
    } cuts[] = {{2, {4, 0}},
                {2, {0, 4}},
                {2, {1, 3}},
                {3, {1, 0, 3}},
                {3, {0, 4, 0}},
                {3, {2, 1, 1}},
                {4, {1, 1, 1, 1}},
                {5, {0, 1, 2, 0, 1}},
                {5, {1, 1, 1, 1}},
                {6, {0, 0, 0, 0, 0, 4}},
                {8, {0, 1, 0, 1, 0, 1, 0, 1}}};
    int count = (int)(sizeof cuts / sizeof *cuts);
    for (int i = 0; i < count; i++) {
        char label[32];
        snprintf(label, sizeof label, "split %d", i);
        take t = studio_run(s, (scene){.devices = cuts[i].devices, .split = cuts[i].split, .samples = 3});
        check_take(label, &t, e);
    }
    return count;
}

static void test_latents(void **state) {
    const studio *s = *state;
    expected e = {0};
    studio_reference(s, (scene){.samples = MOST_SAMPLES}, e.latents);
    for (int i = 0; i < MOST_SAMPLES; i++) /* another seed is another sample */
        for (int k = 0; k < i; k++)
            assert_true(e.latents[i] != e.latents[k]);
    assert_true(sweep_modes(s, &e) + sweep_splits(s, &e) >= COMBINATIONS_PROMISED / STRIDE);
}

static scene with_image(int devices, int samples, const char *mode, int chunk) {
    static int calls;
    static char stem[32];
    snprintf(stem, sizeof stem, "film%d", calls++);
    return (scene){.devices = devices,
                   .samples = samples,
                   .mode = mode,
                   .chunk = chunk,
                   .image = image,
                   .formats = "png",
                   .output = stem};
}

/* From an image to frames: encode and decode run on other devices than the steps between them. */
static void test_frames(void **state) {
    const studio *s = *state;
    expected e;
    take t = studio_run(s, with_image(1, MOST_SAMPLES, "data", 0));
    assert_int_equal(t.code, 0);
    for (int i = 0; i < MOST_SAMPLES; i++) {
        e.latents[i] = t.report->samples[i].latents_hash;
        e.frames[i] = hash_frames(&t.report->samples[i]);
    }
    take_free(&t);
    for (int devices = 1; devices <= STUDIO_DEVICES; devices += STRIDE) {
        for (int m = 0; m < 4; m++) {
            char label[64];
            int samples = 1 + (devices + m) % MOST_SAMPLES;
            snprintf(label, sizeof label, "frames: %s, %d devices, %d samples", modes[m], devices, samples);
            t = studio_run(s, with_image(devices, samples, modes[m], 0));
            check_take(label, &t, &e);
        }
    }
}

/* The chunk of the decoder changes frames (svd-spec.md 9) but never latents; each chunk has its own frames
 * on any plan. */
static void test_chunks(void **state) {
    const studio *s = *state;
    for (int chunk = 1; chunk <= 2; chunk++) {
        expected whole, e;
        studio_reference(s, with_image(1, 2, "data", 0), whole.latents);
        take t = studio_run(s, with_image(1, 2, "data", chunk));
        assert_int_equal(t.code, 0);
        for (int i = 0; i < 2; i++) {
            e.latents[i] = t.report->samples[i].latents_hash;
            e.frames[i] = hash_frames(&t.report->samples[i]);
            assert_int_equal(e.latents[i], whole.latents[i]);
        }
        take_free(&t);
        t = studio_run(s, with_image(4, 2, "pipeline", chunk));
        check_take("pipeline in chunks", &t, &e);
        t = studio_run(s, with_image(3, 2, "wrap", chunk));
        check_take("wrap in chunks", &t, &e);
    }
}

/* Fresh memory with other content: nothing may depend on what was not written. */
static void test_heap_fill(void **state) {
    const studio *s = *state;
    static const int fills[] = {0x55, 0xAA};
    expected e;
    take t = studio_run(s, with_image(2, 3, "pipeline", 2));
    assert_int_equal(t.code, 0);
    for (int i = 0; i < 3; i++) {
        e.latents[i] = t.report->samples[i].latents_hash;
        e.frames[i] = hash_frames(&t.report->samples[i]);
    }
    take_free(&t);
    for (int i = 0; i < 2; i++) {
        mallopt(M_PERTURB, fills[i]);
        t = studio_run(s, with_image(3, 3, "wrap", 2));
        mallopt(M_PERTURB, 0);
        check_take("another heap fill", &t, &e);
    }
}

/* The intermediate tensors of a sample, all of them, are the same on any plan too. */
static void test_dumps(void **state) {
    const studio *s = *state;
    static const struct {
        int devices;
        const char *mode;
    } plans[] = {{1, "data"}, {4, "pipeline"}, {3, "wrap"}};
    char *first = NULL;
    size_t first_bytes = 0;
    for (int i = 0; i < 3; i++) {
        char dump[128], file[160];
        snprintf(dump, sizeof dump, "%s/dump%d", s->work.path, i);
        scene c = with_image(plans[i].devices, 2, plans[i].mode, 2);
        c.dump = dump;
        take t = studio_run(s, c);
        if (t.code)
            fail_msg("%s", t.error.message);
        take_free(&t);
        char *bytes;
        size_t count;
        snprintf(file, sizeof file, "%s/sample-001.safetensors", dump);
        must(vd_file_read(file, "dump", 64 << 20, &bytes, &count, err));
        if (!first) {
            first = bytes;
            first_bytes = count;
            continue;
        }
        assert_int_equal(count, first_bytes);
        assert_memory_equal(bytes, first, count);
        free(bytes);
    }
    free(first);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_latents), cmocka_unit_test(test_frames),
                                       cmocka_unit_test(test_chunks), cmocka_unit_test(test_heap_fill),
                                       cmocka_unit_test(test_dumps)};
    return cmocka_run_group_tests(tests, open_studio, close_studio);
}
