/* Whole runs through vdpp.h against the reference's pipeline: picture in, every tensor of --dump out, with
 * the same dummy weights. Tensors outside the networks have the reference's bits; the others keep the
 * limits of design.md section 7. The golden files are made by make_pipeline.py. */
#include "must.h"

#include "model/dummy.h"
#include "model/folder.h"
#include "vdpp.h"

#include <math.h>

/* As CASES of make_pipeline.py. */
typedef struct golden_case {
    const char *name, *model;
    uint64_t seed;
    vdpp_job job;
} golden_case;

static const golden_case cases[] = {
    {"wide",
     "real",
     42,
     {.width = 128,
      .height = 96,
      .frames = 7,
      .steps = 4,
      .guidance_min = 1,
      .guidance_max = 3,
      .decode_chunk = 3}},
    {"single",
     "real",
     7,
     {.width = 72, .height = 136, .frames = 1, .steps = 5, .guidance_min = 2, .guidance_max = 2}},
    {"irregular",
     "odd",
     1,
     {.width = 104,
      .height = 72,
      .frames = 5,
      .steps = 3,
      .guidance_min = 1,
      .guidance_max = 1,
      .decode_chunk = 2,
      .fps = 12,
      .motion = 200,
      .noise_aug = -1}},
    {"long",
     "small",
     (1ull << 32) + 5,
     {.width = 40,
      .height = 24,
      .frames = 25,
      .steps = 10,
      .guidance_min = 2.5,
      .guidance_max = 1.5,
      .decode_chunk = 7,
      .noise_aug = 0.1}},
};

/* Relative L2 error that a tensor may have; 0: none, bit for bit. */
static const struct {
    const char *name;
    double limit;
} limits[] = {
    {"vae_input", 0}, {"noise", 0},           {"sigmas", 0},           {"timesteps", 0},
    {"time_ids", 0},  {"image_embeds", 3e-6}, {"image_latents", 5e-6}, {"latents", 1.5e-5},
};
enum { LIMITS = sizeof limits / sizeof *limits };

/* ---- running ---- */

static void make_video(const golden_case *c, const folder *where) {
    char configs[64], model[128], output[128];
    snprintf(configs, sizeof configs, "tests/golden/configs/%s", c->model);
    snprintf(model, sizeof model, "%s/model", where->path);
    snprintf(output, sizeof output, "%s/video", where->path);
    must(vd_dummy_write(configs, model, 0, VD_ST_F16, err));

    vdpp_options options;
    vdpp_options_init(&options);
    options.model = model;
    options.devices = (const char *const[]){"cpu:0", "cpu:1"};
    options.device_count = 2;
    options.formats = "null";
    options.dump = where->path;
    vdpp_job job = c->job;
    job.size = sizeof job;
    job.image = "tests/golden/pipeline.png";
    job.fit = "stretch";
    vdpp_sample sample = {.job = &job, .seed = c->seed, .output = output};
    vdpp_engine *engine;
    vdpp_error error;
    vdpp_report *report = NULL;
    if (vdpp_open(&options, &engine, &error) != 0 || vdpp_run(engine, &sample, 1, &report, &error) != 0)
        fail_msg("%s: %s", c->name, error.message);
    vdpp_report_free(report);
    vdpp_close(engine);
}

/* ---- comparing ---- */

typedef struct pair {
    const char *label;
    vd_safetensors *ours, *theirs;
} pair;

static const vd_st_tensor *tensor_of(const vd_safetensors *file, const char *name) {
    const vd_st_tensor *t = vd_safetensors_find(file, name);
    if (!t)
        fail_msg("%s has no '%s'", vd_safetensors_path(file), name);
    return t;
}

/* Both have this tensor in one shape; returns the number of its elements. */
static int64_t same_shape(const pair *p, const char *name) {
    const vd_st_tensor *a = tensor_of(p->ours, name), *b = tensor_of(p->theirs, name);
    int64_t count = 1;
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->rank, b->rank);
    for (int i = 0; i < a->rank; i++) {
        assert_int_equal(a->dims[i], b->dims[i]);
        count *= a->dims[i];
    }
    return count;
}

static float *read_floats(const vd_safetensors *file, const char *name, int64_t count) {
    float *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    must(vd_safetensors_read_f32(file, tensor_of(file, name), 0, count, values, err));
    return values;
}

static double relative_error(const float *a, const float *b, int64_t count) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}

static void check_floats(const pair *p, const char *name, double limit) {
    int64_t count = same_shape(p, name);
    float *ours = read_floats(p->ours, name, count), *theirs = read_floats(p->theirs, name, count);
    bool equal = memcmp(ours, theirs, (size_t)count * sizeof *ours) == 0;
    double error = equal ? 0 : relative_error(ours, theirs, count);
    if (limit > 0)
        print_message("%-10s %-13s %.2e (limit %.1e)\n", p->label, name, error, limit);
    if (limit > 0 ? !(error <= limit) : !equal)
        fail_msg("%s %s is off by %g", p->label, name, error);
    free(ours);
    free(theirs);
}

static uint8_t *read_bytes(const vd_safetensors *file, const char *name) {
    const vd_st_tensor *t = tensor_of(file, name);
    uint8_t *bytes = malloc(t->bytes);
    FILE *stream = fopen(vd_safetensors_path(file), "rb");
    assert_true(bytes && stream && fseek(stream, (long)t->offset, SEEK_SET) == 0);
    assert_int_equal(fread(bytes, 1, t->bytes, stream), t->bytes);
    fclose(stream);
    return bytes;
}

/* Off by at most 1 in at most one of a thousand values. */
static void check_frames(const pair *p) {
    int64_t count = same_shape(p, "frames"), different = 0;
    uint8_t *ours = read_bytes(p->ours, "frames"), *theirs = read_bytes(p->theirs, "frames");
    for (int64_t i = 0; i < count; i++) {
        assert_in_range(ours[i] - theirs[i] + 1, 0, 2);
        different += ours[i] != theirs[i];
    }
    print_message("%-10s frames        %lld of %lld bytes differ\n", p->label, (long long)different,
                  (long long)count);
    assert_true(different * 1000 <= count);
    free(ours);
    free(theirs);
}

/* The network's input of the last step is the latents before it, scaled, and the image beside them in the
 * conditional half. */
static void check_last_input(const pair *p, int steps) {
    char in_name[24], before_name[24];
    snprintf(in_name, sizeof in_name, "unet_in.%d", steps - 1);
    snprintf(before_name, sizeof before_name, "latents.%d", steps - 2);
    const int64_t *dims = tensor_of(p->ours, in_name)->dims; /* [G,F,8,h,w] */
    int64_t halves = dims[0], frames = dims[1], half_frame = dims[2] / 2 * dims[3] * dims[4];
    float *in = read_floats(p->ours, in_name, halves * frames * 2 * half_frame),
          *latents = read_floats(p->ours, before_name, frames * half_frame),
          *image = read_floats(p->ours, "image_latents", half_frame),
          *sigmas = read_floats(p->ours, "sigmas", steps + 1);
    float sigma = sigmas[steps - 1], divisor = sqrtf(sigma * sigma + 1.0f);
    for (int64_t n = 0; n < halves * frames; n++)
        for (int64_t i = 0; i < half_frame; i++) {
            const float *frame = in + n * 2 * half_frame;
            bool conditional = n >= (halves - 1) * frames;
            assert_true(frame[i] == latents[n % frames * half_frame + i] / divisor);
            assert_true(frame[half_frame + i] == (conditional ? image[i] : 0.0f));
        }
    free(in);
    free(latents);
    free(image);
    free(sigmas);
}

static void compare_with_reference(void **state) {
    const golden_case *c = *state;
    folder where = folder_make();
    char golden[64];
    pair p = {.label = c->name};
    make_video(c, &where);
    snprintf(golden, sizeof golden, "tests/golden/pipeline_%s.safetensors", c->name);
    must(vd_safetensors_open(folder_path(&where, "sample-000.safetensors"), &p.ours, err));
    must(vd_safetensors_open(golden, &p.theirs, err));
    assert_int_equal(vd_safetensors_count(p.theirs), LIMITS + 1);
    for (int i = 0; i < LIMITS; i++)
        check_floats(&p, limits[i].name, limits[i].limit);
    check_frames(&p);
    check_last_input(&p, c->job.steps);
    vd_safetensors_close(p.ours);
    vd_safetensors_close(p.theirs);
    folder_remove(&where);
}

int main(void) {
    enum { CASES = sizeof cases / sizeof *cases };
    struct CMUnitTest tests[CASES];
    for (int i = 0; i < CASES; i++)
        tests[i] = (struct CMUnitTest){cases[i].name, compare_with_reference, NULL, NULL, (void *)&cases[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
