/* What convolutions and products of the CPU backend share: no reference code of the library for any shape
 * that a network can have. */
#include "device/cpu_library.h"
#include "device/run_op.h"

#include <stdio.h>

static void plan_only(op_env *env, op_case *t, const vd_cpu_op *table) {
    vd_cpu_plan *plan = NULL;
    size_t scratch = 0;
    t->program.values = t->info;
    t->program.ops = &t->op;
    op_must(vd_cpu_plan_new(table, env->backend->library, &t->program, &t->op, &plan, &scratch, err));
    free(plan);
}

static vd_norm norm_of(op_env *env, vd_norm_kind kind, int64_t c, int groups) {
    vd_norm norm = {.kind = kind, .groups = groups, .eps = 1e-5f, .silu = kind == VD_NORM_GROUP};
    if (kind) {
        norm.gamma = &op_constant_new(env, c, 1, 1, 1, 1, 1, 0)->base;
        norm.beta = &op_constant_new(env, c, 1, 1, 1, 1, 1, 0)->base;
    }
    return norm;
}

static void plan_conv(op_env *env, vd_dtype dtype, vd_shape src, int64_t k, int64_t kh, int64_t kw,
                      int stride, int pad, bool prologue) {
    op_case t;
    op_begin(&t, dtype);
    int before = pad < 0 ? 0 : pad, after = pad < 0 ? -pad : pad; /* negative: below and right only */
    vd_conv op = VD_CONV(.src = op_tensor(&t, dtype, src),
                         .weight = &op_constant_new(env, k, src.c, kh, kw, 1, 1, 0)->base,
                         .bias = &op_constant_new(env, k, 1, 1, 1, 1, 1, 0)->base, .pad_top = before,
                         .pad_bottom = after);
    op.stride = stride;
    if (kw > 1) {
        op.pad_left = before;
        op.pad_right = after;
    }
    vd_shape to = {src.n, (src.h + before + after - kh) / stride + 1,
                   (src.w + op.pad_left + op.pad_right - kw) / stride + 1, k};
    op.dst = op_tensor(&t, dtype, to);
    if (prologue) {
        op.norm = norm_of(env, VD_NORM_GROUP, src.c, 1);
        op.residual = op_alias(&t, op.dst, to);
    }
    t.op = (vd_op){.kind = VD_OP_CONV, .conv = op};
    plan_only(env, &t, &vd_cpu_conv);
    op_end(&t);
}

static void plan_linear(op_env *env, vd_dtype dtype, int64_t rows, int64_t c, int64_t k, vd_act act) {
    op_case t;
    op_begin(&t, dtype);
    vd_linear op = VD_LINEAR(.src = op_tensor(&t, dtype, (vd_shape){1, 1, rows, c}), .act = act,
                             .weight = &op_constant_new(env, k, c, 1, 1, 1, 1, 0)->base,
                             .bias = &op_constant_new(env, k, 1, 1, 1, 1, 1, 0)->base);
    op.dst = op_tensor(&t, dtype, (vd_shape){1, 1, rows, k});
    if (rows > 1) {
        op.norm = norm_of(env, VD_NORM_LAYER, c, 0);
        op.residual = op_alias(&t, op.dst, (vd_shape){1, 1, rows, k});
    }
    t.op = (vd_op){.kind = VD_OP_LINEAR, .linear = op};
    plan_only(env, &t, &vd_cpu_linear);
    op_end(&t);
}

static void plan_feed_forward(op_env *env, vd_dtype dtype, int64_t rows, int64_t c, int64_t hidden,
                              vd_act act) {
    int64_t up = act == VD_ACT_GEGLU ? 2 * hidden : hidden;
    op_case t;
    op_begin(&t, dtype);
    vd_feed_forward op = VD_FEED_FORWARD(.src = op_tensor(&t, dtype, (vd_shape){1, 1, rows, c}), .act = act);
    op.norm = norm_of(env, VD_NORM_LAYER, c, 0);
    op.up_weight = &op_constant_new(env, up, c, 1, 1, 1, 1, 0)->base;
    op.up_bias = &op_constant_new(env, up, 1, 1, 1, 1, 1, 0)->base;
    op.down_weight = &op_constant_new(env, c, hidden, 1, 1, 1, 1, 0)->base;
    op.down_bias = &op_constant_new(env, c, 1, 1, 1, 1, 1, 0)->base;
    op.dst = op_alias(&t, op.src, (vd_shape){1, 1, rows, c});
    t.op = (vd_op){.kind = VD_OP_FEED_FORWARD, .feed_forward = op};
    plan_only(env, &t, &vd_cpu_feed_forward);
    op_end(&t);
}

static void plan_everything(op_env *env, vd_dtype dtype) {
    static const int64_t channels[] = {32, 37, 64, 80, 96, 128, 160, 192, 256, 320, 640, 1280};
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
        int64_t c = channels[i];
        plan_conv(env, dtype, (vd_shape){3, 8, 9, c}, c, 3, 3, 1, 1, true);
        plan_conv(env, dtype, (vd_shape){1, 1, 1, c}, c, 3, 3, 1, 1, true);
        plan_conv(env, dtype, (vd_shape){2, 9, 7, c}, c, 3, 3, 2, 1, false);
        plan_conv(env, dtype, (vd_shape){2, 8, 6, c}, c, 3, 3, 2, -1, false);
        plan_conv(env, dtype, (vd_shape){1, 7, 30, c}, c, 3, 1, 1, 1, true);
        plan_conv(env, dtype, (vd_shape){2, 5, 4, c}, 2 * c, 1, 1, 1, 0, false);
        plan_conv(env, dtype, (vd_shape){1, 8, 8, c}, 3, 3, 3, 1, 1, true);
        plan_conv(env, dtype, (vd_shape){1, 8, 8, c}, 4, 3, 3, 1, 1, true);
        plan_conv(env, dtype, (vd_shape){1, 8, 8, 8}, c, 3, 3, 1, 1, false);
        plan_conv(env, dtype, (vd_shape){1, 8, 8, 3}, c, 3, 3, 1, 1, false);
        plan_conv(env, dtype, (vd_shape){1, 28, 28, 3}, c, 14, 14, 14, 0, false);
        plan_linear(env, dtype, 1, c, c, VD_ACT_SILU);
        plan_linear(env, dtype, 1, c, 1024, VD_ACT_NONE);
        plan_linear(env, dtype, 257, c, 3 * c, VD_ACT_GELU);
        plan_feed_forward(env, dtype, 50, c, 4 * c, VD_ACT_GEGLU);
        plan_feed_forward(env, dtype, 1, c, 37, VD_ACT_QUICK_GELU);
    }
    plan_conv(env, dtype, (vd_shape){1, 7, 99, 3}, 3, 3, 1, 1, 1, false);
    plan_conv(env, dtype, (vd_shape){2, 5, 4, 8}, 8, 1, 1, 1, 0, false);
    plan_conv(env, dtype, (vd_shape){2, 5, 4, 4}, 4, 1, 1, 1, 0, false);
    plan_conv(env, dtype, (vd_shape){1, 200, 180, 64}, 64, 3, 3, 1, 1, true);
    plan_conv(env, dtype, (vd_shape){1, 200, 180, 64}, 64, 3, 3, 2, -1, true);
    plan_conv(env, dtype, (vd_shape){1, 25, 4000, 64}, 64, 3, 1, 1, 1, true);
}

static void check_names(vd_dtype dtype, bool bf16_products) {
    op_env env;
    op_env_open(&env);
    env.backend->library->fast_bf16 = bf16_products;
    plan_everything(&env, dtype);
    int count = vd_cpu_library_kernel_count(env.backend->library);
    assert_true(count > 150);
    for (int i = 0; i < count; i++) {
        const char *name = strchr(vd_cpu_library_kernel(env.backend->library, i), ':');
        assert_non_null(name);
        if (strstr(name, "ref"))
            fail_msg("reference code: %s", vd_cpu_library_kernel(env.backend->library, i));
    }
    op_env_close(&env);
}

static void test_names_fp32(void **state) {
    (void)state;
    check_names(VD_F32, false);
}

static void test_names_bf16(void **state) {
    (void)state;
    if (!op_has_bf16_products())
        skip();
    check_names(VD_BF16, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names_fp32), cmocka_unit_test(test_names_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
