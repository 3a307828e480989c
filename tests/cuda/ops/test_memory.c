/* Memory of the full model on a GPU, from the plans alone: weights, activations and scratch of the
 * networks that one device holds: (2,14,72,128) in fp16 within 4.6 GB, 25 frames of 2304 x 1280 on a card
 * of 24 GB. The libraries' workspaces are counted with their cap, the driver's own memory is not. */
#include "model/hollow.h"
#include "must.h"

#include "device/cuda.h"
#include "model/networks.h"

#include <stdio.h>
#include <stdlib.h>

static const size_t WORKSPACE = (size_t)64 << 20;

typedef struct planned {
    size_t weights, activations, scratch; /* bytes; the latter two of the largest program */
} planned;

/* Plans every operation as the backend does when it compiles a program. */
static void plan_program(vd_cuda_math *math, vd_cuda_weights *weights, vd_program *p, planned *out) {
    vd_cuda_planner planner = {.math = math, .weights = weights, .program = p};
    size_t most = 0;
    for (int i = 0; i < p->op_count; i++) {
        const vd_cuda_op *entry = vd_cuda_ops[p->ops[i].kind];
        vd_cuda_step *step = calloc(1, entry->step_bytes + 1);
        size_t scratch = 0;
        assert_non_null(step);
        if (entry->plan)
            must(entry->plan(&planner, &p->ops[i], step, &scratch, err));
        if (entry->close)
            entry->close(step);
        free(step);
        most = scratch > most ? scratch : most;
    }
    if (p->arena_bytes + most > out->activations + out->scratch) {
        out->activations = p->arena_bytes;
        out->scratch = most;
    }
    out->weights = vd_cuda_weights_bytes(weights);
    vd_program_free(p);
}

/* `decode`: with the VAE's decoder, one frame at a time. */
static planned plan_all(vd_video_shape shape, bool decode) {
    hollow h = hollow_make("tests/golden/configs/full");
    vd_model *model;
    vd_program *program;
    vd_cuda_math *math;
    vd_cuda_pool *pool;
    vd_cuda_weights *weights;
    vd_cuda_math_request request = {.workspace_cap = WORKSPACE};
    planned out = {0};
    must(vd_model_open(h.where.path, NULL, &model, err));
    must(vd_cuda_math_open(&request, &math, err));
    must(vd_cuda_pool_open(&pool, err));
    must(vd_cuda_weights_open(pool, "cuda:0", &weights, err));
    must(vd_build_step(model, VD_F16, shape, false, &program, err));
    plan_program(math, weights, program, &out);
    if (decode) {
        must(vd_build_decoder(model, VD_F16, 1, shape.latent_h, shape.latent_w, &program, err));
        plan_program(math, weights, program, &out);
    }
    vd_cuda_weights_close(weights);
    vd_cuda_pool_close(pool);
    vd_cuda_math_close(math);
    vd_model_close(model);
    hollow_remove(&h);
    return out;
}

static void check(const char *what, vd_video_shape shape, bool decode, double limit) {
    planned m = plan_all(shape, decode);
    double total = (double)(m.weights + m.activations + m.scratch + WORKSPACE) * 1e-9;
    print_message("%s: weights %.2f, activations %.2f, scratch %.2f, with workspace %.2f GB of %.2f\n", what,
                  (double)m.weights * 1e-9, (double)m.activations * 1e-9, (double)m.scratch * 1e-9, total,
                  limit);
    assert_true(total <= limit);
}

static void test_usual_size(void **state) {
    (void)state;
    check("UNet, 14 frames of 1024 x 576", (vd_video_shape){14, 72, 128, 25, true}, false, 4.6);
}

static void test_large_size(void **state) {
    (void)state;
    check("UNet and decoder, 25 frames of 2304 x 1280", (vd_video_shape){25, 160, 288, 25, true}, true, 23);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_usual_size), cmocka_unit_test(test_large_size)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
