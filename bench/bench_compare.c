/* The CUDA backend against the CPU backend: a network of a model folder as a whole, and each of its
 * operations by itself.
 *
 *     bench_compare MODEL NETWORK fp32|fp16|bf16 FRAMES LATENT_H LATENT_W
 *
 * NETWORK as in rig.h. The CPU computes whole networks in fp32, single operations in the type named, from
 * the same values. Numbers are compared by ||a - b|| / ||b||, 8-bit values by the mean of |a - b| / 127.5,
 * anything else bit by bit. Prints JSON; ends with 1 when something is over its limit. */
#include "rig.h"
#include "single.h"

#include "base/half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 8 };

/* What a type is allowed. */
static const double limits[] = {[VD_F32] = 1e-5, [VD_F16] = 5e-3, [VD_BF16] = 3e-2};

typedef struct comparison {
    rig cpu, cuda;
    double limit, worst;
    int over, printed;
} comparison;

/* ---- values ---- */

static double number(const void *values, int64_t i, vd_dtype dtype) {
    if (dtype == VD_F32)
        return (double)((const float *)values)[i];
    uint16_t bits = ((const uint16_t *)values)[i];
    return (double)(dtype == VD_F16 ? vd_f16_to_f32(bits) : vd_bf16_to_f32(bits));
}

static double distance(const void *a, const void *b, int64_t count, vd_dtype dtype) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = number(a, i, dtype), y = number(b, i, dtype);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}

/* Rounding to levels keeps the mean of differences, not that of their squares. */
static double byte_distance(const uint8_t *a, const uint8_t *b, int64_t count) {
    double difference = 0;
    for (int64_t i = 0; i < count; i++)
        difference += abs(a[i] - b[i]);
    return difference / (127.5 * (double)count);
}

static void compare(comparison *c, const char *what, const void *a, const void *b, const vd_value_info *v) {
    int64_t count = vd_shape_count(v->shape);
    double error = v->dtype <= VD_BF16 ? distance(a, b, count, v->dtype)
                   : v->dtype == VD_U8 ? byte_distance(a, b, count)
                                       : (memcmp(a, b, rig_bytes(v)) == 0 ? 0 : INFINITY);
    bool fine = error <= c->limit; /* not for a NaN */
    c->worst = error <= c->worst ? c->worst : error;
    printf("%s\n  {\"what\": \"%s\", ", c->printed++ ? "," : "", what);
    printf(isfinite(error) ? "\"error\": %.2e" : "\"error\": \"%g\"", error);
    printf(", \"fine\": %s}", fine ? "true" : "false");
    c->over += !fine;
}

/* ---- programs ---- */

static bool is_written(const vd_program *p, vd_value v) {
    vd_operand operands[VD_MAX_OPERANDS];
    for (int i = 0; i < p->op_count; i++)
        for (int k = vd_op_operands(&p->ops[i], operands); k-- > 0;)
            if (operands[k].value == v && operands[k].writes)
                return true;
    return false;
}

/* Every external that `p` writes, and `q` too in the same type. */
static void compare_outputs(comparison *c, const char *what, const loaded *a, const loaded *b) {
    const vd_program *p = a->program, *q = b->program;
    for (vd_value v = 0; v < p->value_count; v++) {
        if (p->values[v].storage != VD_STORAGE_EXTERNAL || !is_written(p, v))
            continue;
        vd_value w = vd_program_find(q, p->values[v].name);
        if (w == VD_NONE || q->values[w].dtype != p->values[v].dtype)
            continue;
        void *x = loaded_read(a, v), *y = loaded_read(b, w);
        compare(c, what ? what : p->values[v].name, x, y, &p->values[v]);
        free(x);
        free(y);
    }
}

/* `what` NULL: the outputs' own names. */
static void run_both(comparison *c, const char *what, const vd_program *on_cuda, const vd_program *on_cpu) {
    loaded a, b;
    loaded_open(&a, &c->cuda, on_cuda);
    loaded_open(&b, &c->cpu, on_cpu);
    loaded_run(&a);
    loaded_run(&b);
    compare_outputs(c, what, &a, &b);
    loaded_close(&a);
    loaded_close(&b);
}

static void compare_operations(comparison *c, const vd_program *p) {
    int count;
    op_group *groups = groups_of(p, &count);
    for (int i = 0; i < count; i++) {
        vd_program *one;
        MUST(single_new(p, groups[i].first, 1, &one, err));
        run_both(c, groups[i].what, one, one);
        vd_program_free(one);
    }
    groups_free(groups, count);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: bench_compare MODEL NETWORK fp32|fp16|bf16 FRAMES LATENT_H LATENT_W\n");
        return VD_ERR_USAGE;
    }
    vd_dtype dtype = rig_dtype(argv[3]);
    vd_video_shape shape = {
        .frames = atoi(argv[4]), .latent_h = atoi(argv[5]), .latent_w = atoi(argv[6]), .steps = STEPS};
    vd_model *model;
    comparison c = {.limit = limits[dtype]};
    MUST(vd_model_open(argv[1], NULL, &model, err));
    vd_program *p = rig_network(model, argv[2], dtype, shape, true),
               *exact = rig_network(model, argv[2], VD_F32, shape, true);
    rig_open(&c.cuda, true, 1);
    rig_open(&c.cpu, false, 1);
    printf("{\"network\": \"%s\", \"dtype\": \"%s\", \"limit\": %g, \"values\": [", argv[2], argv[3],
           c.limit);
    run_both(&c, NULL, p, exact);
    compare_operations(&c, p);
    printf("\n], ");
    printf(isfinite(c.worst) ? "\"worst\": %.2e" : "\"worst\": \"%g\"", c.worst);
    printf(", \"over\": %d}\n", c.over);
    rig_close(&c.cpu);
    rig_close(&c.cuda);
    vd_program_free(p);
    vd_program_free(exact);
    vd_model_close(model);
    return c.over || !c.printed;
}
