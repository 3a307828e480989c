/* What the checks of a program refuse: one flaw at a time in an operation of each kind. */
#include "must.h"

#include "device/program.h"

#include <stdio.h>
#include <string.h>

enum { C = 64, ROWS = 6, FRAMES = 3 };

/* Values and constants that right operations are made of; T is fp16, so that fp32 is a wrong type for it. */
typedef struct materials {
    vd_program *p;
    vd_value x, x32, wide, qkv, short_x, vector, scalar, index, sum, sigmas, latents, image, input, v, frames,
        table, sines;
} materials;

static const vd_constant square = {.name = "square", .dims = {C, C, 1, 1}};
static const vd_constant kernel = {.name = "kernel", .dims = {C, C, 3, 3}};
static const vd_constant vector = {.name = "vector", .dims = {C, 1, 1, 1}};
static const vd_constant up = {.name = "up", .dims = {2 * C, C, 1, 1}};
static const vd_constant up_bias = {.name = "up_bias", .dims = {2 * C, 1, 1, 1}};
static const vd_constant odd = {.name = "odd", .dims = {C + 1, C - 1, 1, 1}};
static const vd_norm layer = {.kind = VD_NORM_LAYER, .gamma = &vector, .beta = &vector, .eps = 1e-5f};
static const vd_norm group = {
    .kind = VD_NORM_GROUP, .gamma = &vector, .beta = &vector, .groups = 4, .eps = 1e-5f};

static vd_value external(vd_program *p, vd_dtype t, int64_t n, int64_t h, int64_t w, int64_t c) {
    return vd_program_external(p, "external", t, (vd_shape){n, h, w, c});
}

static materials make_materials(void) {
    vd_program *p = vd_program_new("broken", VD_F16);
    assert_non_null(p);
    return (materials){.p = p,
                       .x = external(p, VD_F16, 1, 2, ROWS / 2, C),
                       .x32 = external(p, VD_F32, 1, 2, ROWS / 2, C),
                       .wide = external(p, VD_F16, 1, 2, ROWS / 2, C + 1),
                       .qkv = external(p, VD_F16, 1, 2, ROWS / 2, 3 * C),
                       .short_x = external(p, VD_F16, 1, 1, 1, C),
                       .vector = external(p, VD_F32, 1, 1, 1, C),
                       .scalar = external(p, VD_F32, 1, 1, 1, 1),
                       .index = external(p, VD_I32, 1, 1, 1, 1),
                       .sum = external(p, VD_U64, 1, 1, 1, 1),
                       .sigmas = external(p, VD_F32, 1, 1, 1, 5),
                       .latents = external(p, VD_F32, FRAMES, 2, 2, 4),
                       .image = external(p, VD_F32, 1, 2, 2, 4),
                       .input = external(p, VD_F16, 2 * FRAMES, 2, 2, 8),
                       .v = external(p, VD_F32, 2 * FRAMES, 2, 2, 4),
                       .frames = external(p, VD_U8, 1, 2, ROWS / 2, C),
                       .table = external(p, VD_F32, 1, 1, ROWS, C),
                       .sines = external(p, VD_F16, 1, 1, ROWS, 8)};
}

/* One operation with flaw number `flaw`; 0 is none. Says which operand the message must name; NULL past
 * the last. */
typedef const char *flawed_op(materials *m, int flaw);

static const char *conv(materials *m, int flaw) {
    vd_conv o = VD_CONV(.src = m->x, .norm = group, .weight = &kernel, .bias = &vector, .pad_top = 1,
                        .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .in_h = 2, .in_w = ROWS / 2);
    const char *names[] = {"",     "src", "src1",     "norm.gamma", "norm", "weight",
                           "bias", "dst", "residual", "weight",     "src"};
    switch (flaw) {
    case 1:
        o.src = m->x32;
        break;
    case 2:
        o.src1 = m->x, o.norm.kind = VD_NORM_NONE;
        break;
    case 3:
        o.norm.gamma = &odd;
        break;
    case 4:
        o.in_h = 4;
        break;
    case 5:
        o.weight = &odd;
        break;
    case 6:
        o.bias_value = m->vector;
        break;
    case 7:
        o.dst = m->wide;
        break;
    case 8:
        o.residual = m->short_x;
        break;
    case 9:
        o.weight = NULL;
        break;
    case 10:
        o.src = m->short_x, o.in_h = o.in_w = 1, o.pad_top = o.pad_bottom = 0;
        break;
    }
    vd_program_conv(m->p, o);
    return flaw < 11 ? names[flaw] : NULL;
}

static const char *linear(materials *m, int flaw) {
    vd_linear o = VD_LINEAR(.src = m->x, .norm = layer, .weight = &square, .bias = &vector);
    const char *names[] = {"",           "src", "norm.beta", "weight",   "weight",
                           "bias_value", "act", "dst",       "residual", "norm.eps"};
    switch (flaw) {
    case 1:
        o.src = VD_NONE;
        break;
    case 2:
        o.norm.beta = NULL;
        break;
    case 3:
        o.weight = NULL;
        break;
    case 4:
        o.weight = &odd;
        break;
    case 5:
        o.bias = NULL, o.bias_value = m->v;
        break;
    case 6:
        o.act = VD_ACT_GEGLU;
        break;
    case 7:
        o.dst = m->frames;
        break;
    case 8:
        o.residual = m->x32;
        break;
    case 9:
        o.norm.eps = 0;
        break;
    }
    vd_program_linear(m->p, o);
    return flaw < 10 ? names[flaw] : NULL;
}

static const char *feed_forward(materials *m, int flaw) {
    vd_feed_forward o = VD_FEED_FORWARD(.src = m->x, .norm = layer, .act = VD_ACT_GEGLU, .up_weight = &up,
                                        .up_bias = &up_bias, .down_weight = &square, .down_bias = &vector);
    const char *names[] = {"",          "src",     "norm", "norm", "down_weight", "down_bias",
                           "up_weight", "up_bias", "mix",  "add",  "dst"};
    switch (flaw) {
    case 1:
        o.src = m->x32;
        break;
    case 2:
        o.norm = group;
        break;
    case 3:
        o.act = VD_ACT_SILU;
        break;
    case 4:
        o.down_weight = NULL;
        break;
    case 5:
        o.down_bias = &odd;
        break;
    case 6:
        o.up_weight = &square;
        break;
    case 7:
        o.up_bias = &vector;
        break;
    case 8:
        o.mix = m->short_x;
        break;
    case 9:
        o.add = m->x;
        break;
    case 10:
        o.dst = m->x32;
        break;
    }
    vd_program_feed_forward(m->p, o);
    return flaw < 11 ? names[flaw] : NULL;
}

static const char *attention(materials *m, int flaw) {
    vd_attention o =
        VD_ATTENTION(.qkv = m->qkv, .heads = 2, .width = C / 2, .outer = 1, .inner = 1, .tokens = ROWS,
                     .outer_stride = ROWS, .inner_stride = ROWS, .token_stride = 1, .scale = 0.25f);
    const char *names[] = {"", "qkv", "qkv", "qkv", "qkv", "dst"};
    switch (flaw) {
    case 1:
        o.qkv = m->x32;
        break;
    case 2:
        o.heads = 3;
        break;
    case 3:
        o.tokens = ROWS - 1;
        break;
    case 4:
        o.token_stride = 2;
        break;
    case 5:
        o.dst = m->qkv;
        break;
    }
    vd_program_attention(m->p, o);
    return flaw < 6 ? names[flaw] : NULL;
}

static const char *layer_norm(materials *m, int flaw) {
    vd_layer_norm o = {.src = m->x, .norm = layer, .dst = VD_NONE};
    const char *names[] = {"", "src", "norm", "norm", "dst"};
    switch (flaw) {
    case 1:
        o.src = m->x32;
        break;
    case 2:
        o.norm = group;
        break;
    case 3:
        o.norm.silu = true;
        break;
    case 4:
        o.dst = m->x32;
        break;
    }
    vd_program_layer_norm(m->p, o);
    return flaw < 5 ? names[flaw] : NULL;
}

static const char *sinusoid(materials *m, int flaw) {
    vd_sinusoid o = {.positions = VD_NONE, .dst = m->sines};
    const char *names[] = {"", "dst", "dst", "positions"};
    switch (flaw) {
    case 1:
        o.dst = VD_NONE;
        break;
    case 2:
        o.dst = m->x;
        break;
    case 3:
        o.positions = m->vector;
        break;
    }
    vd_program_sinusoid(m->p, o);
    return flaw < 4 ? names[flaw] : NULL;
}

static const char *gather_row(materials *m, int flaw) {
    vd_gather_row o = {.table = m->table, .index = m->index, .dst = VD_NONE};
    const char *names[] = {"", "table", "index", "dst"};
    switch (flaw) {
    case 1:
        o.table = m->x32;
        break;
    case 2:
        o.index = m->scalar;
        break;
    case 3:
        o.dst = m->scalar;
        break;
    }
    vd_program_gather_row(m->p, o);
    return flaw < 4 ? names[flaw] : NULL;
}

static const char *unet_input(materials *m, int flaw) {
    vd_unet_input o = {
        .latents = m->latents, .image = m->image, .sigmas = m->sigmas, .step = m->index, .dst = m->input};
    const char *names[] = {"", "latents", "image", "sigmas", "step", "dst"};
    switch (flaw) {
    case 1:
        o.latents = m->input;
        break;
    case 2:
        o.image = m->latents;
        break;
    case 3:
        o.sigmas = m->image;
        break;
    case 4:
        o.step = m->scalar;
        break;
    case 5:
        o.dst = m->v;
        break;
    }
    vd_program_unet_input(m->p, o);
    return flaw < 6 ? names[flaw] : NULL;
}

static const char *euler_step(materials *m, int flaw) {
    vd_value guidance = external(m->p, VD_F32, 1, 1, 1, FRAMES);
    vd_euler_step o = {.v = m->v,
                       .guidance = guidance,
                       .sigmas = m->sigmas,
                       .step = m->index,
                       .latents = m->latents,
                       .image = m->image,
                       .next = m->input};
    vd_euler_step alone = o;
    const char *names[] = {"", "v", "guidance", "sigmas", "step", "latents", "image", "next", "next"};
    switch (flaw) {
    case 1:
        o.v = m->input;
        break;
    case 2:
        o.guidance = m->scalar;
        break;
    case 3:
        o.sigmas = m->latents;
        break;
    case 4:
        o.step = m->sum;
        break;
    case 5:
        o.latents = m->input;
        break;
    case 6:
        o.image = m->latents;
        break;
    case 7:
        o.next = m->v;
        break;
    case 8:
        o.v = m->latents; /* unguided */
        break;
    }
    vd_program_euler_step(m->p, o);
    alone.image = alone.next = VD_NONE;
    vd_program_euler_step(m->p, alone);
    return flaw < 9 ? names[flaw] : NULL;
}

static const char *cast(materials *m, int flaw) {
    vd_cast o = {.src = m->x, .dst = m->x32, .scale = 2};
    const char *names[] = {"", "src", "dst", "dst"};
    switch (flaw) {
    case 1:
        o.src = VD_NONE;
        break;
    case 2:
        o.dst = m->frames;
        break;
    case 3:
        o.dst = m->vector;
        break;
    }
    vd_program_cast(m->p, o);
    return flaw < 4 ? names[flaw] : NULL;
}

static const char *frames_u8(materials *m, int flaw) {
    vd_frames_u8 o = {.src = m->x, .dst = m->frames};
    const char *names[] = {"", "src", "dst"};
    switch (flaw) {
    case 1:
        o.src = m->frames;
        break;
    case 2:
        o.dst = m->x;
        break;
    }
    vd_program_frames_u8(m->p, o);
    return flaw < 3 ? names[flaw] : NULL;
}

static const char *copy(materials *m, int flaw) {
    vd_copy o = {.src = m->v, .dst = external(m->p, VD_F32, 1, 1, 1, 2 * FRAMES * 16)};
    const char *names[] = {"", "src", "dst"};
    switch (flaw) {
    case 1:
        o.src = 1000;
        break;
    case 2:
        o.dst = m->x;
        break;
    }
    vd_program_copy(m->p, o);
    return flaw < 3 ? names[flaw] : NULL;
}

static const char *checksum(materials *m, int flaw) {
    vd_checksum o = {.src = m->x, .dst = m->sum};
    const char *names[] = {"", "src", "dst"};
    switch (flaw) {
    case 1:
        o.src = external(m->p, VD_U8, 1, 1, 1, 7);
        break;
    case 2:
        o.dst = m->index;
        break;
    }
    vd_program_checksum(m->p, o);
    return flaw < 3 ? names[flaw] : NULL;
}

static const char *nonfinite(materials *m, int flaw) {
    vd_nonfinite o = {.src = m->x, .dst = m->index};
    const char *names[] = {"", "src", "dst"};
    switch (flaw) {
    case 1:
        o.src = m->frames;
        break;
    case 2:
        o.dst = m->sum;
        break;
    }
    vd_program_nonfinite(m->p, o);
    return flaw < 3 ? names[flaw] : NULL;
}

/* The right operation is taken, each flaw is refused with program, operation and operand named. */
static void check_flaws(vd_op_kind kind, flawed_op *op) {
    for (int flaw = 0;; flaw++) {
        materials m = make_materials();
        vd_error error = {0};
        const char *operand = op(&m, flaw);
        vd_code code = vd_program_finish(m.p, &error);
        vd_program_free(m.p);
        if (!operand)
            return;
        char named[64];
        snprintf(named, sizeof named, "program broken, operation 0 (%s): %s ", vd_op_name(kind), operand);
        named[strlen(named) - 1] = 0;
        if (code != (flaw ? VD_ERR_INTERNAL : VD_OK) ||
            (flaw && strncmp(error.message, named, strlen(named)) != 0))
            fail_msg("%s, flaw %d of '%s': code %d, %s", vd_op_name(kind), flaw, operand, code,
                     error.message);
    }
}

#define OP_CASE(upper, lower) [VD_OP_##upper] = lower,

static void test_flaws(void **state) {
    (void)state;
    static flawed_op *const ops[VD_OP_COUNT] = {VD_OPS(OP_CASE)};
    for (int kind = 0; kind < VD_OP_COUNT; kind++)
        check_flaws((vd_op_kind)kind, ops[kind]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flaws)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
