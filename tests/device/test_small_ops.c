/* Operations between the networks: embeddings, both ends of a step, conversions, checks. */
#include "base/hash.h"
#include "device/run_op.h"

static int setup(void **state) {
    op_env *env = calloc(1, sizeof *env);
    assert_non_null(env);
    op_env_open(env);
    *state = env;
    return 0;
}

static int teardown(void **state) {
    op_env_close(*state);
    free(*state);
    return 0;
}

/* ---- sinusoid: svd-spec 7.2 ---- */

typedef struct golden {
    int64_t row, column;
    double value;
} golden;

static vd_value embed(op_env *env, op_case *c, vd_dtype dtype, const float *positions, int64_t count,
                      int64_t dim) {
    op_begin(c, dtype);
    vd_value dst = op_tensor(c, dtype, (vd_shape){1, 1, count, dim}), at = VD_NONE;
    if (positions) {
        at = op_tensor(c, VD_F32, vd_vector_shape(count));
        memcpy(c->memory[at], positions, (size_t)count * sizeof *positions);
    }
    c->op = (vd_op){.kind = VD_OP_SINUSOID, .sinusoid = {.positions = at, .dst = dst}};
    op_run(env, c);
    return dst;
}

static void check_sinusoid(void **state) {
    const float positions[] = {1.63777006f, -1.55365205f, 6, 127, 0.02f, 255};
    const golden time[] = {{0, 0, -0.066924}, {0, 1, 0.024639}, {0, 160, 0.997758}, {0, 161, 0.999696}};
    const golden ids[] = {{3, 0, 0.232359}, {3, 1, 0.364339}, {3, 128, 0.972630}, {3, 129, -0.931266}};
    op_case c;
    vd_value dst = embed(*state, &c, VD_F32, positions, 6, 320);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(op_get(&c, dst, time[i].row * 320 + time[i].column) - time[i].value) < 6e-7);
    op_end(&c);
    dst = embed(*state, &c, VD_F32, positions, 6, 256);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(op_get(&c, dst, ids[i].row * 256 + ids[i].column) - ids[i].value) < 6e-7);
    op_end(&c);
}

static void check_sinusoid_shapes(void **state) {
    for (vd_dtype t = VD_F32; t <= VD_BF16; t++)
        for (int64_t dim = 1; dim <= 33; dim += 16) {
            op_case c;
            vd_value dst = embed(*state, &c, t, NULL, 5, dim);
            for (int64_t r = 0; r < 5; r++)
                for (int64_t j = 0, m = dim / 2; j < dim; j++) {
                    double w = exp(-log(10000) * (double)(j % (m > 0 ? m : 1)) / (double)m);
                    double want = j < m ? cos((double)r * w) : j < 2 * m ? sin((double)r * w) : 0;
                    assert_true(fabs(op_get(&c, dst, r * dim + j) - op_rounded(t, want)) <=
                                (t == VD_F32   ? 1e-6
                                 : t == VD_F16 ? 0x1p-11
                                               : 0x1p-8));
                }
            op_end(&c);
        }
}

/* ---- gather_row ---- */

static void check_gather(void **state) {
    op_case c;
    op_begin(&c, VD_F16);
    vd_value table = op_tensor(&c, VD_F32, (vd_shape){1, 1, 4, 7}),
             index = op_tensor(&c, VD_I32, vd_vector_shape(1));
    vd_value dst = op_tensor(&c, VD_F32, vd_vector_shape(7));
    op_random(&c, table, 1, 1, 0);
    c.op = (vd_op){.kind = VD_OP_GATHER_ROW, .gather_row = {.table = table, .index = index, .dst = dst}};
    for (int32_t i = 0; i < 4; i++) {
        *(int32_t *)c.memory[index] = i;
        op_run(*state, &c);
        assert_memory_equal(c.memory[dst], (float *)c.memory[table] + i * 7, 7 * sizeof(float));
    }
    for (int32_t i = -1; i <= 4 && OP_CHECKS_INDICES; i += 5) {
        vd_error err;
        *(int32_t *)c.memory[index] = i;
        assert_int_equal(op_try(*state, &c, &err), VD_ERR_INTERNAL);
    }
    op_end(&c);
}

/* ---- a sampling step: svd-spec 8, one rounding at a time ---- */

typedef struct step_case {
    op_case c;
    vd_value latents, sigmas, step, image, guidance, v, dst;
} step_case;

enum { FRAMES = 3, HEIGHT = 5, WIDTH = 7, CHANNELS = 4, STEPS = 3, FRAME = HEIGHT * WIDTH * CHANNELS };

static void step_begin(step_case *s, vd_dtype dtype, int64_t halves, int32_t step) {
    const float sigmas[STEPS + 1] = {700.0f, 15.5899677f, 0.00200000009f, 0};
    vd_shape frames = {FRAMES, HEIGHT, WIDTH, CHANNELS}, all = frames;
    op_begin(&s->c, dtype);
    s->latents = op_tensor(&s->c, VD_F32, frames);
    s->sigmas = op_tensor(&s->c, VD_F32, vd_vector_shape(STEPS + 1));
    s->step = op_tensor(&s->c, VD_I32, vd_vector_shape(1));
    s->image = op_tensor(&s->c, VD_F32, (vd_shape){1, HEIGHT, WIDTH, CHANNELS});
    s->guidance = op_tensor(&s->c, VD_F32, vd_vector_shape(FRAMES));
    all.n *= halves;
    s->v = op_tensor(&s->c, VD_F32, all);
    all.c *= 2;
    s->dst = op_tensor(&s->c, dtype, all);
    memcpy(s->c.memory[s->sigmas], sigmas, sizeof sigmas);
    *(int32_t *)s->c.memory[s->step] = step;
    op_random(&s->c, s->latents, 1, 2000, 0);
    op_random(&s->c, s->image, 2, 3, 0);
    op_random(&s->c, s->v, 3, 4, 0);
    op_random(&s->c, s->guidance, 4, 1, 2);
}

static vd_op input_op(const step_case *s) {
    return (vd_op){
        .kind = VD_OP_UNET_INPUT,
        .unet_input = {
            .latents = s->latents, .image = s->image, .sigmas = s->sigmas, .step = s->step, .dst = s->dst}};
}

/* `dst` is the network's input of step i, rounded once. */
static void check_input(const step_case *s, int64_t halves, int i) {
    vd_dtype dtype = s->c.program.dtype;
    volatile float sigma = (float)op_get(&s->c, s->sigmas, i), square = sigma * sigma, q = square + 1.0f;
    volatile float root = sqrtf(q);
    for (int64_t n = 0; n < halves * FRAMES; n++)
        for (int64_t j = 0; j < FRAME; j++) {
            int64_t at = (n * HEIGHT * WIDTH + j / CHANNELS) * 2 * CHANNELS + j % CHANNELS;
            volatile float x = (float)op_get(&s->c, s->latents, n % FRAMES * FRAME + j) / root;
            bool blank = halves == 2 && n < FRAMES;
            assert_true(op_get(&s->c, s->dst, at) == op_rounded(dtype, x));
            assert_true(op_get(&s->c, s->dst, at + CHANNELS) ==
                        op_rounded(dtype, blank ? 0 : op_get(&s->c, s->image, j)));
        }
}

static void check_unet_input(void **state) {
    for (int i = 0; i < 3 * 2 * STEPS; i++) {
        step_case s;
        int64_t halves = 1 + i / 3 % 2;
        step_begin(&s, (vd_dtype)(i % 3), halves, i / 6);
        s.c.op = input_op(&s);
        op_run(*state, &s.c);
        check_input(&s, halves, i / 6);
        op_end(&s.c);
    }
}

static float euler(float sigma, float next, float x, float v) {
    volatile float square = sigma * sigma, q = square + 1.0f, root = sqrtf(q), c = -sigma / root;
    volatile float a = v * c, b = x / q, x0 = a + b, difference = x - x0, d = difference / sigma;
    volatile float change = next - sigma, move = d * change, result = x + move;
    return result;
}

static float guided(float without, float with, float guidance) {
    volatile float difference = with - without, product = guidance * difference, result = without + product;
    return result;
}

static vd_op euler_op(const step_case *s, bool next) {
    return (vd_op){.kind = VD_OP_EULER_STEP,
                   .euler_step = {.v = s->v,
                                  .guidance = s->guidance,
                                  .sigmas = s->sigmas,
                                  .step = s->step,
                                  .latents = s->latents,
                                  .image = next ? s->image : VD_NONE,
                                  .next = next ? s->dst : VD_NONE}};
}

/* Step i, with the input of the one after it or without. */
static void check_step(op_env *env, vd_dtype dtype, int64_t halves, int i, bool with_next) {
    step_case s;
    int64_t all = FRAMES * FRAME;
    step_begin(&s, dtype, halves, i);
    double *before = op_doubles(&s.c, s.latents);
    float sigma = (float)op_get(&s.c, s.sigmas, i), next = (float)op_get(&s.c, s.sigmas, i + 1);
    s.c.op = euler_op(&s, with_next);
    op_run(env, &s.c);
    assert_int_equal(*(int32_t *)s.c.memory[s.step], i + 1);
    for (int64_t j = 0; j < all; j++) {
        float v = (float)op_get(&s.c, s.v, j);
        if (halves == 2)
            v = guided(v, (float)op_get(&s.c, s.v, all + j), (float)op_get(&s.c, s.guidance, j / FRAME));
        assert_true(op_get(&s.c, s.latents, j) == euler(sigma, next, (float)before[j], v));
    }
    if (with_next)
        check_input(&s, halves, i + 1);
    free(before);
    op_end(&s.c);
}

static void check_euler(void **state) {
    for (int i = 0; i < STEPS; i++)
        for (int64_t halves = 1; halves <= 2; halves++) {
            check_step(*state, VD_F16, halves, i, false);
            for (vd_dtype t = VD_F32; t <= VD_BF16; t++)
                check_step(*state, t, halves, i, true);
        }
}

/* In one operation or in two, to the last bit. */
static void check_fusion(void **state) {
    for (vd_dtype t = VD_F32; t <= VD_BF16; t++)
        for (int64_t halves = 1; halves <= 2; halves++) {
            step_case one, two;
            step_begin(&one, t, halves, 0);
            one.c.op = euler_op(&one, true);
            op_run(*state, &one.c);
            step_begin(&two, t, halves, 0);
            two.c.op = euler_op(&two, false);
            op_run(*state, &two.c);
            two.c.op = input_op(&two);
            op_run(*state, &two.c);
            assert_memory_equal(one.c.memory[one.latents], two.c.memory[two.latents],
                                op_bytes(&one.c, one.latents));
            assert_memory_equal(one.c.memory[one.dst], two.c.memory[two.dst], op_bytes(&one.c, one.dst));
            op_end(&one.c);
            op_end(&two.c);
        }
}

static void check_steps_end(void **state) {
    step_case s;
    step_begin(&s, VD_F32, 1, STEPS);
    vd_error err;
    s.c.op = euler_op(&s, true);
    if (OP_CHECKS_INDICES)
        assert_int_equal(op_try(*state, &s.c, &err), VD_ERR_INTERNAL);
    assert_int_equal(*(int32_t *)s.c.memory[s.step], STEPS);
    op_end(&s.c);
}

/* ---- conversions ---- */

static void check_cast(void **state) {
    for (int i = 0; i < 9; i++) {
        op_case c;
        vd_dtype from = (vd_dtype)(i / 3), to = (vd_dtype)(i % 3);
        op_begin(&c, VD_F16);
        vd_value src = op_tensor(&c, from, (vd_shape){3, 5, 7, 3}),
                 dst = op_tensor(&c, to, vd_vector_shape(315));
        op_random(&c, src, 5, 10, 0);
        c.op = (vd_op){.kind = VD_OP_CAST, .cast = {.src = src, .dst = dst, .scale = 5.489981f}};
        op_run(*state, &c);
        for (int64_t j = 0; j < 315; j++) {
            volatile float product = (float)op_get(&c, src, j) * 5.489981f;
            assert_true(op_get(&c, dst, j) == op_rounded(to, product));
        }
        op_end(&c);
    }
}

/* Every byte's neighbourhood and both its borders with the next, and values far out. */
static void check_frames(void **state) {
    enum { PER_BYTE = 11, COUNT = 256 * PER_BYTE };
    const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f, -1, 1};
    const int want[] = {0, 255, 0, 255, 0, 0, 255};
    for (vd_dtype t = VD_F32; t <= VD_BF16; t++) {
        op_case c;
        op_begin(&c, t);
        vd_value src = op_tensor(&c, t, (vd_shape){1, 256, PER_BYTE, 1}),
                 dst = op_tensor(&c, VD_U8, (vd_shape){1, 256, PER_BYTE, 1});
        for (int i = 0; i < COUNT; i++) {
            float x = (float)((i / PER_BYTE + i % PER_BYTE * 0.1 - 0.5) / 127.5 - 1);
            op_set(&c, src, i, i % 7 ? x : nextafterf(x, i % 2 ? 2 : -2));
        }
        for (int i = 0; i < 7; i++)
            op_set(&c, src, 40 + i, odd[i]);
        c.op = (vd_op){.kind = VD_OP_FRAMES_U8, .frames_u8 = {.src = src, .dst = dst}};
        op_run(*state, &c);
        for (int i = 0; i < COUNT; i++) {
            volatile float half = (float)op_get(&c, src, i) * 0.5f, y = half + 0.5f;
            volatile float level = 255.0f * (y < 0 ? 0 : y > 1 ? 1 : y);
            if (i < 40 || i >= 47)
                assert_int_equal(((uint8_t *)c.memory[dst])[i], (int)nearbyint(level));
        }
        for (int i = 0; i < 7; i++)
            assert_int_equal(((uint8_t *)c.memory[dst])[40 + i], want[i]);
        op_end(&c);
    }
}

/* 0.5, 1.5, 2.5 ... 254.5 exactly: halves go to the even neighbour. */
static void check_frames_even(void **state) {
    op_case c;
    int ties = 0;
    op_begin(&c, VD_F32);
    vd_value src = op_tensor(&c, VD_F32, vd_vector_shape(255)),
             dst = op_tensor(&c, VD_U8, vd_vector_shape(255));
    for (int i = 0; i < 255; i++) {
        float y = (float)((i + 0.5) / 255), x = (y - 0.5f) * 2;
        op_set(&c, src, i, x);
    }
    c.op = (vd_op){.kind = VD_OP_FRAMES_U8, .frames_u8 = {.src = src, .dst = dst}};
    op_run(*state, &c);
    for (int i = 0; i < 255; i++) {
        volatile float level = 255.0f * ((float)op_get(&c, src, i) * 0.5f + 0.5f);
        if (level != (float)i + 0.5f)
            continue;
        ties++;
        assert_int_equal(((uint8_t *)c.memory[dst])[i], i + i % 2);
    }
    assert_true(ties > 50);
    op_end(&c);
}

/* ---- copies and checks ---- */

static void check_copy_and_checksum(void **state) {
    op_case c;
    op_begin(&c, VD_F16);
    vd_value src = op_tensor(&c, VD_F16, (vd_shape){3, 5, 7, 2}),
             dst = op_tensor(&c, VD_F32, vd_vector_shape(105));
    vd_value sum = op_tensor(&c, VD_U64, vd_vector_shape(1));
    op_random(&c, src, 6, 1, 0);
    c.op = (vd_op){.kind = VD_OP_COPY, .copy = {.src = src, .dst = dst}};
    op_run(*state, &c);
    assert_memory_equal(c.memory[src], c.memory[dst], 420);
    c.op = (vd_op){.kind = VD_OP_CHECKSUM, .checksum = {.src = src, .dst = sum}};
    op_run(*state, &c);
    assert_true(*(uint64_t *)c.memory[sum] == vd_hash64(c.memory[src], 420));
    op_end(&c);
}

static void check_nonfinite(void **state) {
    for (vd_dtype t = VD_F32; t <= VD_BF16; t++) {
        op_case c;
        op_begin(&c, t);
        vd_value src = op_tensor(&c, t, (vd_shape){1, 1, 100, 37}),
                 count = op_tensor(&c, VD_I32, vd_vector_shape(1));
        op_random(&c, src, 7, t == VD_F16 ? 65504 : 3e38, 0);
        c.op = (vd_op){.kind = VD_OP_NONFINITE, .nonfinite = {.src = src, .dst = count}};
        *(int32_t *)c.memory[count] = 5;
        op_run(*state, &c);
        assert_int_equal(*(int32_t *)c.memory[count], 5);
        op_set(&c, src, 0, NAN);
        op_set(&c, src, 1234, INFINITY);
        op_set(&c, src, 3699, -INFINITY);
        op_run(*state, &c);
        assert_int_equal(*(int32_t *)c.memory[count], 8);
        op_end(&c);
    }
}

static void check_layer_norm(void **state) {
    op_case c;
    op_constant *gamma = op_constant_new(*state, 37, 1, 1, 1, 8, 1, 1);
    op_constant *beta = op_constant_new(*state, 37, 1, 1, 1, 9, 1, 0);
    op_begin(&c, VD_BF16);
    vd_value src = op_tensor(&c, VD_BF16, (vd_shape){2, 1, 3, 37}),
             dst = op_tensor(&c, VD_BF16, (vd_shape){2, 1, 3, 37});
    op_random(&c, src, 10, 2, 1);
    vd_norm norm = {.kind = VD_NORM_LAYER, .gamma = &gamma->base, .beta = &beta->base, .eps = 1e-5f};
    c.op = (vd_op){.kind = VD_OP_LAYER_NORM, .layer_norm = {.src = src, .dst = dst, .norm = norm}};
    op_run(*state, &c);
    for (int64_t r = 0; r < 6; r++) {
        double mean = 0, m2 = 0;
        for (int64_t j = 0; j < 37; j++)
            mean += op_get(&c, src, r * 37 + j) / 37;
        for (int64_t j = 0; j < 37; j++)
            m2 += pow(op_get(&c, src, r * 37 + j) - mean, 2);
        for (int64_t j = 0; j < 37; j++) {
            double y = (op_get(&c, src, r * 37 + j) - mean) / sqrt(m2 / 37 + 1e-5);
            /* the vectors may have been rounded to the program's type */
            double want = y * (double)op_constant_at(gamma, j) + (double)op_constant_at(beta, j);
            assert_true(fabs(op_get(&c, dst, r * 37 + j) - want) <= 0x1p-7 * (1 + fabs(y) + fabs(want)));
        }
    }
    op_end(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_sinusoid),
        cmocka_unit_test(check_sinusoid_shapes),
        cmocka_unit_test(check_gather),
        cmocka_unit_test(check_unet_input),
        cmocka_unit_test(check_euler),
        cmocka_unit_test(check_fusion),
        cmocka_unit_test(check_steps_end),
        cmocka_unit_test(check_cast),
        cmocka_unit_test(check_frames),
        cmocka_unit_test(check_frames_even),
        cmocka_unit_test(check_copy_and_checksum),
        cmocka_unit_test(check_nonfinite),
        cmocka_unit_test(check_layer_norm),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
