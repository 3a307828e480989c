/* The networks against the reference: the same dummy weights and inputs, outputs made by make_networks.py.
 * Bounds are those of design.md section 7; between two of its own code paths the reference differs by a third
 * of them. */
#include "golden/run_program.h"

#include "base/rng.h"
#include "model/dummy.h"
#include "model/folder.h"
#include "model/networks.h"

#include <math.h>

enum { LATENTS = 1, IMAGE, EMBEDS, CLIP_PIXELS, VAE_PIXELS, DECODER_LATENTS }; /* seeds */
enum { STEPS = 3, STEP = 1, MAX_FORWARDS = 3 };

static float sigmas[STEPS + 1] = {700.0f, 15.5899677f, 0.002f, 0};
static float time_ids[] = {6.0f, 127.0f, 0.02f};

/* As CASES of make_networks.py. */
typedef struct golden_case {
    const char *name;
    int height, width; /* of the VAE's picture */
    int frames, h, w;  /* of a decoded chunk */
    vd_video_shape forwards[MAX_FORWARDS];
} golden_case;

static golden_case cases[] = {
    {"tiny", 36, 28, 3, 9, 7, {{2, 16, 16, STEPS, true}, {1, 9, 7, STEPS, false}, {25, 4, 6, STEPS, true}}},
    {"odd", 40, 52, 2, 7, 5, {{5, 13, 9, STEPS, true}, {2, 10, 12, STEPS, false}}},
    {"real", 64, 96, 5, 6, 8, {{7, 16, 24, STEPS, true}, {2, 9, 14, STEPS, false}}},
    {"last", 24, 20, 1, 10, 12, {{3, 11, 14, STEPS, true}, {1, 8, 8, STEPS, false}}},
};

typedef struct fixture {
    const golden_case *c;
    folder where;
    vd_model *model;
    vd_safetensors *golden;
    machine machine;
} fixture;

static void fixture_open(fixture *f, const golden_case *c) {
    char configs[64], golden[64];
    snprintf(configs, sizeof configs, "tests/golden/configs/%s", c->name);
    snprintf(golden, sizeof golden, "tests/golden/networks_%s.safetensors", c->name);
    f->c = c;
    f->where = folder_make();
    must(vd_dummy_write(configs, f->where.path, 0, VD_ST_F16, err));
    must(vd_model_open(f->where.path, NULL, &f->model, err));
    must(vd_safetensors_open(golden, &f->golden, err));
    machine_open(&f->machine);
}

static void fixture_close(fixture *f) {
    machine_close(&f->machine);
    vd_safetensors_close(f->golden);
    vd_model_close(f->model);
    folder_remove(&f->where);
}

static float *draw(int seed, int64_t count) {
    vd_rng rng;
    vd_rng_seed(&rng, (uint64_t)seed);
    float *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    vd_rng_normal_f32(&rng, values, (size_t)count);
    return values;
}

static int64_t external_count(const vd_program *p, const char *name) {
    vd_value v = vd_program_find(p, name);
    assert_int_not_equal(v, VD_NONE);
    return vd_shape_count(p->values[v].shape);
}

static void *room_for(const vd_program *p, const char *name) {
    assert_int_not_equal(vd_program_find(p, name), VD_NONE);
    void *room = calloc(1, value_bytes(p, vd_program_find(p, name)));
    assert_non_null(room);
    return room;
}

/* ---- comparing ---- */

static const vd_st_tensor *golden_tensor(const fixture *f, const char *name, int64_t count) {
    const vd_st_tensor *t = vd_safetensors_find(f->golden, name);
    assert_non_null(t);
    int64_t elements = 1;
    for (int i = 0; i < t->rank; i++)
        elements *= t->dims[i];
    assert_int_equal(elements, count);
    return t;
}

/* ||a - b|| / ||b|| against a golden tensor. */
static void compare(const fixture *f, const char *name, const float *values, int64_t count, double limit,
                    vd_dtype dtype) {
    const vd_st_tensor *t = golden_tensor(f, name, count);
    float *expected = malloc((size_t)count * sizeof *expected);
    assert_non_null(expected);
    must(vd_safetensors_read_f32(f->golden, t, 0, count, expected, err));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = (double)values[i] - expected[i];
        difference += d * d;
        norm += (double)expected[i] * expected[i];
    }
    free(expected);
    double error = sqrt(difference / norm);
    print_message("%-5s %-7s %s  %.2e (limit %.0e)\n", f->c->name, name, vd_dtype_name(dtype), error, limit);
    if (!(error <= limit))
        fail_msg("%s %s in %s is off by %g", f->c->name, name, vd_dtype_name(dtype), error);
}

/* At most 1 in `one_in` values may differ, by at most `most`. */
static void compare_frames(const fixture *f, const uint8_t *frames, int64_t count, double share_limit,
                           int most) {
    const vd_st_tensor *t = golden_tensor(f, "frames", count);
    char path[64];
    snprintf(path, sizeof path, "tests/golden/networks_%s.safetensors", f->c->name);
    uint8_t *expected = malloc((size_t)count);
    FILE *file = fopen(path, "rb");
    assert_true(expected && file && fseek(file, (long)t->offset, SEEK_SET) == 0);
    assert_int_equal(fread(expected, 1, (size_t)count, file), count);
    fclose(file);
    int64_t different = 0;
    int worst = 0;
    for (int64_t i = 0; i < count; i++) {
        int d = abs(frames[i] - expected[i]);
        different += d != 0;
        worst = d > worst ? d : worst;
    }
    free(expected);
    double share = (double)different / (double)count;
    print_message("%-5s frames       %.2e differ, by %d (limit %.0e, %d)\n", f->c->name, share, worst,
                  share_limit, most);
    assert_true(share <= share_limit && worst <= most);
}

/* ---- networks ---- */

static void check_clip(fixture *f, vd_dtype dtype, double limit) {
    vd_program *p;
    must(vd_build_clip(f->model, dtype, &p, err));
    float *pixels = draw(CLIP_PIXELS, external_count(p, "clip_pixels")), *embeds = room_for(p, "embeds");
    run_program(&f->machine, p, (external[]){{"clip_pixels", pixels}, {"embeds", embeds}, {0}});
    compare(f, "embeds", embeds, external_count(p, "embeds"), limit, dtype);
    vd_program_free(p);
    free(pixels);
    free(embeds);
}

static void check_encoder(fixture *f) {
    vd_program *p;
    must(vd_build_vae_encoder(f->model, VD_F32, f->c->height, f->c->width, &p, err));
    float *pixels = draw(VAE_PIXELS, external_count(p, "vae_pixels")), *image = room_for(p, "image");
    run_program(&f->machine, p, (external[]){{"vae_pixels", pixels}, {"image", image}, {0}});
    compare(f, "image", image, external_count(p, "image"), 5e-6, VD_F32);
    vd_program_free(p);
    free(pixels);
    free(image);
}

static void check_decoder(fixture *f, vd_dtype dtype, double share, int most) {
    vd_program *p;
    must(vd_build_decoder(f->model, dtype, f->c->frames, f->c->h, f->c->w, &p, err));
    float *latents = draw(DECODER_LATENTS, external_count(p, "decoder_latents"));
    uint8_t *frames = room_for(p, "decoder_frames");
    int32_t nonfinite = 0;
    run_program(
        &f->machine, p,
        (external[]){
            {"decoder_latents", latents}, {"decoder_frames", frames}, {"nonfinite", &nonfinite}, {0}});
    assert_int_equal(nonfinite, 0);
    compare_frames(f, frames, external_count(p, "decoder_frames"), share, most);
    vd_program_free(p);
    free(latents);
    free(frames);
}

/* What the condition and step programs share: drawn, and made by the first for the second. */
typedef struct sample {
    float *latents, *image;
    int32_t step;
    float *step_bias, *context, *positions;
    void *unet_in; /* of the programs' type */
} sample;

static sample sample_open(const vd_program *condition) {
    sample s = {.latents = draw(LATENTS, external_count(condition, "latents")),
                .image = draw(IMAGE, external_count(condition, "image")),
                .step = STEP,
                .step_bias = room_for(condition, "step_bias"),
                .context = room_for(condition, "context"),
                .positions = room_for(condition, "positions"),
                .unet_in = room_for(condition, "unet_in")};
    for (int64_t i = 0; i < external_count(condition, "latents"); i++)
        s.latents[i] *= sigmas[STEP];
    return s;
}

static void sample_close(sample *s) {
    free(s->latents);
    free(s->image);
    free(s->step_bias);
    free(s->context);
    free(s->positions);
    free(s->unet_in);
}

static sample condition(fixture *f, vd_dtype dtype, vd_video_shape shape) {
    vd_program *p;
    must(vd_build_condition(f->model, dtype, shape, &p, err));
    float timesteps[STEPS], *embeds = draw(EMBEDS, external_count(p, "embeds"));
    for (int i = 0; i < STEPS; i++)
        timesteps[i] = (float)(0.25 * log((double)sigmas[i]));
    sample s = sample_open(p);
    run_program(&f->machine, p,
                (external[]){{"embeds", embeds},
                             {"time_ids", time_ids},
                             {"timesteps", timesteps},
                             {"sigmas", sigmas},
                             {"step", &s.step},
                             {"image", s.image},
                             {"latents", s.latents},
                             {"step_bias", s.step_bias},
                             {"context", s.context},
                             {"positions", s.positions},
                             {"unet_in", s.unet_in},
                             {0}});
    vd_program_free(p);
    free(embeds);
    return s;
}

static void check_forward(fixture *f, int which, vd_dtype dtype, double limit) {
    vd_video_shape shape = f->c->forwards[which];
    sample s = condition(f, dtype, shape);
    vd_program *p;
    must(vd_build_step(f->model, dtype, shape, true, &p, err));
    float *v = room_for(p, "unet_out");
    run_program(&f->machine, p,
                (external[]){{"step_bias", s.step_bias},
                             {"context", s.context},
                             {"positions", s.positions},
                             {"image", s.image},
                             {"sigmas", sigmas},
                             {"latents", s.latents},
                             {"step", &s.step},
                             {"unet_in", s.unet_in},
                             {"unet_out", v},
                             {0}});
    assert_int_equal(s.step, STEP + 1);
    char name[16];
    snprintf(name, sizeof name, "v.%d", which);
    compare(f, name, v, external_count(p, "unet_out"), limit, dtype);
    print_message("      arena %zu bytes, %d operations, %.2f GFLOP\n", p->arena_bytes, p->op_count,
                  vd_program_flops(p) * 1e-9);
    vd_program_free(p);
    free(v);
    sample_close(&s);
}

static void networks_agree_with_the_reference(void **state) {
    fixture f;
    fixture_open(&f, *state);
    check_clip(&f, VD_F32, 3e-6);
    check_encoder(&f);
    check_decoder(&f, VD_F32, 1e-3, 1);
    for (int i = 0; i < MAX_FORWARDS && f.c->forwards[i].frames; i++)
        check_forward(&f, i, VD_F32, 5e-6);
    fixture_close(&f);
}

/* 16 bits of storage against the fp32 reference. */
static void networks_agree_in_16_bits(void **state) {
    fixture f;
    fixture_open(&f, *state);
    for (int wide = 0; wide < 2; wide++) {
        vd_dtype dtype = wide ? VD_BF16 : VD_F16;
        double limit = wide ? 3e-2 : 5e-3;
        check_clip(&f, dtype, limit);
        check_decoder(&f, dtype, wide ? 0.7 : 0.15, wide ? 8 : 2);
        check_forward(&f, 0, dtype, limit);
    }
    fixture_close(&f);
}

#define GOLDEN(test, i)                                                                                      \
    { #test ": case " #i, test, NULL, NULL, &cases[i] }

/* An argument chooses tests by their names, for machines on which all of them take too long. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        GOLDEN(networks_agree_with_the_reference, 0), GOLDEN(networks_agree_with_the_reference, 1),
        GOLDEN(networks_agree_with_the_reference, 2), GOLDEN(networks_agree_with_the_reference, 3),
        GOLDEN(networks_agree_in_16_bits, 0),         GOLDEN(networks_agree_in_16_bits, 2),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
