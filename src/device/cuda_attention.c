/* Attention over the pixels of an image through the library, which wants a sequence's tokens in
 * neighbouring rows; all other attention (over frames, fp32, odd widths, the VAE's wide head) through our own
 * kernel. */
#include "device/cuda_lower.h"

struct vd_cuda_step {
    vd_cuda_plan *plan; /* NULL: our own kernel */
    size_t workspace;
};

/* What NVIDIA documents. For wider heads plans are offered too, for which nobody answers. */
enum { LIBRARY_WIDTH = 256 };

static bool in_neighbouring_rows(const vd_attention *a) {
    return a->inner == 1 && a->token_stride == 1 && a->outer_stride == a->tokens;
}

static vd_code plan(const vd_cuda_planner *pl, const vd_op *generic, vd_cuda_step *s, size_t *scratch,
                    vd_error *err) {
    const vd_attention *op = &generic->attention;
    if (!in_neighbouring_rows(op) || op->width > LIBRARY_WIDTH)
        return VD_OK;
    vd_cuda_sdpa_spec spec = {.batch = op->outer,
                              .heads = op->heads,
                              .tokens = op->tokens,
                              .width = op->width,
                              .dtype = pl->program->dtype,
                              .scale = op->scale};
    VD_TRY(vd_cuda_sdpa_open(pl->math, &spec, &s->plan, err));
    if (s->plan)
        s->workspace = vd_cuda_take(scratch, vd_cuda_plan_workspace(s->plan));
    return VD_OK;
}

static vd_code run(const vd_op *generic, const vd_cuda_step *s, const vd_cuda_call *call, vd_error *err) {
    const vd_attention *op = &generic->attention;
    if (s->plan)
        return vd_cuda_sdpa_run(s->plan, call->stream, vd_cuda_value(call, op->qkv),
                                vd_cuda_value(call, op->dst), vd_cuda_at(call, s->workspace), err);
    vdk_attention a = {.qkv = vd_cuda_value(call, op->qkv),
                       .y = vd_cuda_value(call, op->dst),
                       .heads = op->heads,
                       .width = op->width,
                       .outer = op->outer,
                       .inner = op->inner,
                       .tokens = op->tokens,
                       .outer_stride = op->outer_stride,
                       .inner_stride = op->inner_stride,
                       .token_stride = op->token_stride,
                       .scale = op->scale,
                       .dtype = call->program->dtype};
    return vd_cuda_ran(call, vdk_run_attention(&a, call->stream), "attention", err);
}

static void close_step(vd_cuda_step *s) {
    vd_cuda_plan_close(s->plan);
}

const vd_cuda_op vd_cuda_attention = {
    .step_bytes = sizeof(vd_cuda_step), .plan = plan, .run = run, .close = close_step};
